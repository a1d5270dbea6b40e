/** The calls of `libc-names.ts`, against the kernel. */

import { expect, test } from "bun:test";
import { closeSync, constants, fstatSync, openSync, readdirSync, statSync } from "node:fs";
import { SystemError } from "../../src/memory/error.ts";
import { linkAt, openAt, type Place, renameAt } from "../../src/memory/os/libc-names.ts";
import { ModelFolder } from "../harness/load.ts";

const making = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;

/** Runs `use` with places in a folder that is held open, and its path. */
function inFolder(use: (place: (name: string) => Place, path: string) => void): void {
  using folder = new ModelFolder();
  const directory = openSync(folder.path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    use((name) => ({ directory, name }), folder.path);
  } finally {
    closeSync(directory);
  }
}

function codeOf(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    if (error instanceof SystemError) return `${error.call} ${error.code}`;
    throw error;
  }
  return "none";
}

test("a file is made, moved and linked by names in a directory, whatever the collector does meanwhile", () => {
  for (const [made, moved, linked] of [
    ["a", "b", "c.private"],
    ["m".repeat(255), "n".repeat(255), "o"],
  ] as const) {
    inFolder((place, path) => {
      const fd = openAt(place(made), making, 0o600);
      Bun.gc(true);
      renameAt(place(made), place(moved));
      linkAt(place(moved), place(linked));
      expect(readdirSync(path).sort()).toEqual([moved, linked].sort());
      expect(statSync(`${path}/${linked}`).ino).toBe(fstatSync(fd).ino);
      expect(fstatSync(fd).mode & 0o777).toBe(0o600);
      closeSync(fd);
    });
  }
});

test("a file goes from one directory to another, and over what stands there", () => {
  inFolder((from, fromPath) =>
    inFolder((to, toPath) => {
      for (const place of [from("a"), to("a")]) closeSync(openAt(place, making, 0o600));
      const { ino } = statSync(`${fromPath}/a`);
      renameAt(from("a"), to("a"));
      expect([readdirSync(fromPath), readdirSync(toPath)]).toEqual([[], ["a"]]);
      expect(statSync(`${toPath}/a`).ino).toBe(ino);
    }),
  );
});

test("what the system refuses says which call and why", () => {
  inFolder((place, path) => {
    closeSync(openAt(place("there"), making, 0o600));
    expect(codeOf(() => openAt(place("there"), making, 0o600))).toBe("openat EEXIST");
    expect(codeOf(() => openAt(place("nowhere"), constants.O_RDONLY, 0))).toBe("openat ENOENT");
    expect(codeOf(() => renameAt(place("nowhere"), place("x")))).toBe("renameat ENOENT");
    closeSync(openAt(place("other"), making, 0o600));
    expect(codeOf(() => linkAt(place("there"), place("other")))).toBe("linkat EEXIST");
    expect(readdirSync(path).sort()).toEqual(["other", "there"]);
  });
});

test("what is no name in that directory never reaches the system", () => {
  inFolder((place) => {
    for (const name of ["", "a/b", "a\0b", "é", "n".repeat(256)]) {
      expect(() => openAt(place(name), making, 0o600)).toThrow("not a file's name");
      expect(() => renameAt(place("a"), place(name))).toThrow("not a file's name");
      expect(() => linkAt(place(name), place("a"))).toThrow("not a file's name");
    }
    expect(() => openAt({ directory: -1, name: "a" }, making, 0o600)).toThrow("not a file descriptor");
  });
});
