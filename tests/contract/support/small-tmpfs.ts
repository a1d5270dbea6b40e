/** A tmpfs of a few MiB and inodes, to fill to its last page. Mounting takes root; without it the tests that need one are skipped. */

import { closeSync, mkdtempSync, openSync, rmdirSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MiB } from "../../../src/memory/limits.ts";

/** Enough for the journal's share and a few regions. */
export const smallTmpfsBytes = 24 * MiB;
/** More than an app takes. Tests fill all of them. */
const fewInodes = 300;

export class SmallTmpfs implements Disposable {
  readonly path: string;
  #files = 0;

  constructor(inodes = fewInodes) {
    this.path = mkdtempSync(join(tmpdir(), "tensord-small-"));
    const failure = mount(this.path, inodes);
    if (failure === undefined) return;
    rmdirSync(this.path);
    throw new Error(failure);
  }

  /** Takes every free page. What is freed later can be taken by another call. */
  fill(): void {
    const fd = openSync(join(this.path, "filler"), "a");
    try {
      for (const size of [MiB, 4096]) writeUntilFull(fd, Buffer.alloc(size));
    } finally {
      closeSync(fd);
    }
  }

  /** Takes every inode but `free`. */
  fillInodes(free: number): void {
    for (;;) {
      try {
        closeSync(openSync(this.#file(this.#files), "wx"));
        this.#files += 1;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
        break;
      }
    }
    for (let left = free; left > 0; left--) {
      this.#files -= 1;
      rmSync(this.#file(this.#files));
    }
  }

  /** Gives all of it back. */
  drain(): void {
    rmSync(join(this.path, "filler"), { force: true });
    for (; this.#files > 0; this.#files--) rmSync(this.#file(this.#files - 1));
  }

  #file(index: number): string {
    return join(this.path, `foreign-${index}`);
  }

  [Symbol.dispose](): void {
    const { exitCode, stderr } = Bun.spawnSync(["umount", this.path]);
    if (exitCode !== 0) throw new Error(`umount: ${stderr}`);
    rmdirSync(this.path);
  }
}

function writeUntilFull(fd: number, bytes: Uint8Array): void {
  try {
    while (writeSync(fd, bytes) > 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
  }
}

function mount(path: string, inodes: number): string | undefined {
  const options = `size=${smallTmpfsBytes},nr_inodes=${inodes},mode=1777`;
  const { exitCode, stderr } = Bun.spawnSync(["mount", "-t", "tmpfs", "-o", options, "tensord-test", path]);
  return exitCode === 0 ? undefined : `cannot mount a tmpfs: ${stderr.toString().trim()}`;
}

function probe(): string | undefined {
  try {
    using _ = new SmallTmpfs();
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

/** Why no tmpfs can be mounted here, or undefined if one can. */
export const noMountBecause: string | undefined = probe();
