/**
 * Pages that files of the shared directory are going to be written to, and that have not come yet: the file system calls them free, and
 * they are nobody else's. How many have come the file itself says, at every moment.
 */

import { statSync } from "node:fs";

interface Promised {
  /** In whole pages. */
  readonly byteSize: number;
  /** Where the file may lie: it is kept on its way. */
  readonly paths: () => readonly string[];
}

export class PromisedPages {
  readonly #files = new Map<string, Promised>();

  add(token: string, file: Promised): void {
    this.#files.set(token, file);
  }

  has(token: string): boolean {
    return this.#files.has(token);
  }

  /** All have come, or none is wanted any more. */
  delete(token: string): void {
    this.#files.delete(token);
  }

  /** What is still to come. Of a file that is gone nothing is. */
  get bytes(): number {
    let sum = 0;
    for (const token of this.#files.keys()) sum += this.of(token);
    return sum;
  }

  /** What of it is one file's. */
  of(token: string): number {
    const file = this.#files.get(token);
    if (file === undefined) return 0;
    for (const path of file.paths()) {
      const stat = statSync(path, { throwIfNoEntry: false });
      // stat(2): `st_blocks` counts 512 bytes each.
      if (stat !== undefined) return Math.max(0, file.byteSize - stat.blocks * 512);
    }
    return 0;
  }
}
