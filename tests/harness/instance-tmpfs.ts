/** A tmpfs of a test's own: small, or measured to the byte, because nobody else is in it. Needs root. */

import {
  chmodSync,
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmdirSync,
  rmSync,
  statfsSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** What an instance has on its file system beside regions and journal: the page with the pid in its lock file. */
export const lockPageBytes = 4096;

/** How long a process may take to end. */
const endingMs = 180_000;

export interface TmpfsOptions {
  readonly sizeBytes: number;
  readonly inodes?: number;
  /** 1777 unless it says otherwise, as /dev/shm has. */
  readonly mode?: string;
}

export class Tmpfs implements Disposable {
  readonly path: string;
  readonly #parent: string;

  constructor({ sizeBytes, inodes, mode = "1777" }: TmpfsOptions) {
    this.#parent = mkdtempSync(join(tmpdir(), "tensord-test-"));
    chmodSync(this.#parent, 0o755);
    this.path = join(this.#parent, "shm");
    mkdirSync(this.path);
    const options = [`size=${sizeBytes}`, `mode=${mode}`, ...(inodes === undefined ? [] : [`nr_inodes=${inodes}`])];
    run("mount", "-t", "tmpfs", "-o", options.join(","), "tensord-test", this.path);
  }

  get usedBytes(): number {
    const { bsize, blocks, bfree } = statfsSync(this.path);
    return (blocks - bfree) * bsize;
  }

  get freeBytes(): number {
    const { bsize, bfree } = statfsSync(this.path);
    return bfree * bsize;
  }

  /** What lies in it. */
  names(): string[] {
    return readdirSync(this.path);
  }

  get freeInodes(): number {
    return statfsSync(this.path).ffree;
  }

  /** A foreign file of `byteSize` bytes. Returns its path. */
  occupy(name: string, byteSize: number): string {
    const path = join(this.path, name);
    writeFileSync(path, Buffer.alloc(byteSize, 1));
    return path;
  }

  /** Takes every page that is free, with a foreign file that grows with each call. Returns its path. */
  fill(name = "foreign"): string {
    const path = join(this.path, name);
    const page = Buffer.alloc(4096, 1);
    const fd = openSync(path, "a");
    try {
      for (;;) writeSync(fd, page);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
    } finally {
      closeSync(fd);
    }
    return path;
  }

  /** Takes every inode that is free, with empty foreign files. Returns what gives them back. */
  fillInodes(): () => void {
    const paths: string[] = [];
    for (;;) {
      const path = join(this.path, `foreign-${paths.length}`);
      try {
        writeFileSync(path, "");
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
        return () => {
          for (const made of paths) rmSync(made, { force: true });
        };
      }
      paths.push(path);
    }
  }

  [Symbol.dispose](): void {
    const { exitCode, stderr } = this.#unmount();
    // What a failed test left running must not keep it from the next one.
    if (exitCode !== 0) run("umount", "-l", this.path);
    rmdirSync(this.path);
    rmdirSync(this.#parent);
    if (exitCode !== 0) throw new Error(`a process still uses the file system of the test: ${stderr}`);
  }

  /** A process that has said that it ends, as an fd holder does, may have its descriptors for a moment yet. */
  #unmount() {
    for (const deadline = performance.now() + endingMs; ; Bun.sleepSync(10)) {
      const outcome = Bun.spawnSync(["umount", this.path]);
      if (outcome.exitCode === 0 || performance.now() > deadline) return outcome;
    }
  }
}

function run(...command: string[]): void {
  const { exitCode, stderr } = Bun.spawnSync(command);
  if (exitCode !== 0) throw new Error(`${command.join(" ")}: ${stderr}`);
}
