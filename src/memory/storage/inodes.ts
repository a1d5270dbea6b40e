/**
 * A file system that has no inode left: how it is told, and the spare ones of an instance. These are empty files that a
 * start gives up where it must make a file, so that a server which was stopped in order comes back there.
 */

import { closeSync, constants, rmSync, statfsSync } from "node:fs";
import { TensordError } from "../error.ts";
import { limits } from "../limits.ts";
import { openFile } from "../os/files.ts";

const { O_CREAT, O_NOFOLLOW, O_RDONLY } = constants;

/** Free inodes of the file system of `path`; one that is mounted with nr_inodes=0, or has no such bound, has no end of them. */
export function freeInodes(path: string): number {
  const { files, ffree } = statfsSync(path);
  return files === 0 ? Number.MAX_SAFE_INTEGER : ffree;
}

/** @param action what cannot be done: `Cannot <action>: …`. @param where the directory. */
export function outOfInodes(
  action: string,
  where: string,
  { what = "", cause }: { what?: string; cause?: unknown } = {},
) {
  return new TensordError(
    "out-of-inodes",
    `Cannot ${action}: no inode is free in ${where}${what}`,
    { errno: "ENOSPC", hint: "Delete regions or foreign files there, or mount it with a larger nr_inodes." },
    { cause },
  );
}

export interface SparePlace {
  /** The instance's own directory, by descriptor, with a slash at its end. */
  readonly ownPath: string;
  readonly shmDirectory: string;
}

export class SpareInodes implements Disposable {
  readonly #place: SparePlace;
  #isKept = false;

  constructor(place: SparePlace) {
    this.#place = place;
  }

  /** Runs `make`, again with one inode more each time that it finds none. @throws TensordError `out-of-inodes`. */
  async lend<Result>(action: string, make: () => Result | Promise<Result>): Promise<Result> {
    for (;;) {
      try {
        return await make();
      } catch (error) {
        if (!saysNoInode(error) || freeInodes(this.#place.ownPath) > 0) throw error;
        if (!this.#giveUp()) throw outOfInodes(action, this.#place.shmDirectory, { cause: error });
      }
    }
  }

  #giveUp(): boolean {
    for (const path of sparePaths(this.#place.ownPath)) {
      try {
        rmSync(path);
        return true;
      } catch {
        // It was given up before.
      }
    }
    return false;
  }

  /** Makes those that are missing, as far as there are inodes for them; from here on the stop does so too. */
  restore(): void {
    this.#isKept = true;
    try {
      for (const path of sparePaths(this.#place.ownPath)) {
        closeSync(openFile(path, O_RDONLY | O_CREAT | O_NOFOLLOW, 0o600));
      }
    } catch {
      // The next start or stop tries again.
    }
  }

  /** After a start that failed it makes none: they would be others'. */
  [Symbol.dispose](): void {
    if (this.#isKept) this.restore();
  }
}

export function sparePaths(ownPath: string): readonly string[] {
  return Array.from({ length: limits.spareInodes }, (_, at) => `${ownPath}spare-${at}`);
}

/** As the system says it, SQLite, or whoever gives that as a cause. */
function saysNoInode(error: unknown): boolean {
  for (let next = error; next instanceof Error; next = next.cause) {
    const { code } = next as NodeJS.ErrnoException;
    if (code === "ENOSPC" || code === "SQLITE_CANTOPEN") return true;
  }
  return false;
}
