/** Files of others whose names look like an instance's own. A server must leave them exactly as they are. */

import { expect } from "bun:test";
import { lstatSync, mkdirSync, readFileSync, readlinkSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import type { Instance } from "./instance.ts";

export class ForeignFiles implements Disposable {
  readonly #paths: readonly string[];
  readonly #before: ReturnType<typeof look>[];

  constructor({ shmDirectory, name }: Instance) {
    const at = (suffix: string) => join(shmDirectory, `tensord.${name}${suffix}`);
    // Named as a region's file is, but linked in nobody's keeper.
    const file = at(`.${"a".repeat(26)}`);
    const short = at(".foo");
    const link = at(`.${"b".repeat(26)}`);
    const directory = at(`.${"c".repeat(26)}`);
    const other = at(`x.${"d".repeat(26)}`);
    for (const path of [file, short, other]) writeFileSync(path, `not ours: ${path}`, { mode: 0o640 });
    symlinkSync(file, link);
    mkdirSync(directory);
    writeFileSync(join(directory, "inside"), "not ours");
    this.#paths = [file, short, link, directory, other];
    this.#before = this.#paths.map(look);
  }

  get names(): string[] {
    return this.#paths.map((path) => basename(path));
  }

  /** Same inode, mode, times and content. */
  assertUntouched(): void {
    expect(this.#paths.map(look), "foreign files are untouched").toEqual(this.#before);
  }

  [Symbol.dispose](): void {
    for (const path of this.#paths) rmSync(path, { recursive: true, force: true });
  }
}

function look(path: string) {
  const stat = lstatSync(path, { bigint: true, throwIfNoEntry: false });
  if (stat === undefined) return `${path} is gone`;
  const { ino, mode, mtimeNs, ctimeNs, size, nlink, uid } = stat;
  const content = stat.isSymbolicLink()
    ? readlinkSync(path)
    : readFileSync(stat.isDirectory() ? join(path, "inside") : path, "utf8");
  return { path, ino, mode, mtimeNs, ctimeNs, size, nlink, uid, content };
}
