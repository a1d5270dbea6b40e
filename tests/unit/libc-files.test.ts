/** The calls of `libc-files.ts`, against the kernel. */

import { expect, test } from "bun:test";
import {
  closeSync,
  constants,
  fstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { SystemError } from "../../src/memory/error.ts";
import { dropCached, openBeneath } from "../../src/memory/os/libc-files.ts";
import { ModelFolder } from "../harness/load.ts";

function codeOf(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    if (error instanceof SystemError) return `${error.call} ${error.code}`;
    throw error;
  }
  return "none";
}

test("openBeneath opens what lies below its directory, and refuses what leads out of it", () => {
  using folder = new ModelFolder();
  mkdirSync(join(folder.path, "in"));
  folder.write("in/file", "here");
  symlinkSync("file", join(folder.path, "in/link"));
  symlinkSync("..", join(folder.path, "in/up"));
  symlinkSync("/etc/hostname", join(folder.path, "in/out"));
  const directory = openSync(join(folder.path, "in"), constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    for (const path of ["file", "link"]) {
      const fd = openBeneath(directory, path);
      expect(readFileSync(fd, "utf8")).toBe("here");
      closeSync(fd);
    }
    for (const path of ["out", "up/in/file", "../in/file", "/etc/hostname"]) {
      expect([path, codeOf(() => openBeneath(directory, path))]).toEqual([path, "openat2 EXDEV"]);
    }
    expect(codeOf(() => openBeneath(directory, "none"))).toBe("openat2 ENOENT");
    expect(() => openBeneath(directory, "a\0b")).toThrow("NUL");
  } finally {
    closeSync(directory);
  }
});

test("dropCached takes nothing from a file's content", () => {
  using folder = new ModelFolder();
  const path = join(folder.path, "file");
  writeFileSync(path, Buffer.alloc(8192, 5));
  const fd = openSync(path, "r");
  dropCached(fd, 0, fstatSync(fd).size);
  expect(readFileSync(fd).equals(Buffer.alloc(8192, 5))).toBeTrue();
  closeSync(fd);
  expect(() => dropCached(-1, 0, 1)).toThrow("not a file descriptor");
});
