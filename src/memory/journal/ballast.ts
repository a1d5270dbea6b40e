/**
 * A file of written pages that is given up when the file system is full, so that the journal can still record deletes:
 * SQLite needs a page even for a DELETE. Written again when there is space.
 */

import { closeSync, fstatSync, statfsSync, statSync, truncateSync } from "node:fs";
import { limits } from "../limits.ts";
import { openFile } from "../os/files.ts";
import { fallocate } from "../os/libc.ts";

export class Ballast {
  readonly #path: string;
  readonly #fileSystemPath: string;
  #isWhole = false;

  constructor(path: string, fileSystemPath: string) {
    this.#path = path;
    this.#fileSystemPath = fileSystemPath;
  }

  /**
   * Frees some of its pages; false if there are none left. Not all at once: a neighbour that keeps writing would take
   * what the journal does not need now, and leave nothing for the next delete.
   */
  giveUp(): boolean {
    const byteSize = statSync(this.#path, { throwIfNoEntry: false })?.size ?? 0;
    this.#isWhole = false;
    if (byteSize === 0) return false;
    truncateSync(this.#path, Math.max(0, byteSize - limits.ballastSliceBytes));
    return true;
  }

  /** Writes it again if it is missing and twice its size is free. */
  restore(): void {
    if (this.#isWhole) return;
    const { bavail, bsize } = statfsSync(this.#fileSystemPath);
    if (bavail * bsize < 2 * limits.ballastBytes) return;
    try {
      this.#write();
      this.#isWhole = true;
    } catch {
      // Somebody took the pages, the last inode or the last descriptor; the next write tries again.
    }
  }

  #write(): void {
    const fd = openFile(this.#path, "a+", 0o600);
    try {
      if (fstatSync(fd).blocks * 512 < limits.ballastBytes) fallocate(fd, 0, limits.ballastBytes);
    } finally {
      closeSync(fd);
    }
  }
}
