/** The Node client's attach protocol, step by step, on files that look like a region's: open, lock, *then* check. */

import { afterAll, expect } from "bun:test";
import { chmodSync, lstatSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { assertNothingLeft, createInstance, defaultShmDirectory } from "../harness/instance.ts";
import { testWith } from "../harness/instance-needs.ts";
import { needsNodeClient, type Runtime, runProgram, runtimes } from "../harness/node-program.ts";

const token = "a".repeat(26);

afterAll(assertNothingLeft);

/** A file of a page in a directory of its own on the tmpfs, until disposed, and where a client is told that it lies. */
function makePlace() {
  const { name } = createInstance();
  const directory = mkdtempSync(join(defaultShmDirectory, `tensord-test-${name}-`));
  const path = join(directory, `tensord.${name}.${token}`);
  writeFileSync(path, Buffer.alloc(4096, 7));
  chmodSync(path, 0o660);
  const { dev, ino } = lstatSync(path, { bigint: true });
  const place = { region: `reg_${token}`, path, dev: String(dev), ino: String(ino), byteSize: 4096 };
  return { place, [Symbol.dispose]: () => rmSync(directory, { recursive: true }) };
}

/** Before each look at the file's name `beforeLook` runs; `isLocked(byte)` says whether anybody has a lock there. */
function toProgram(place: object, body: string): string {
  return `
    import fs from "node:fs";
    import { syncBuiltinESMExports } from "node:module";
    const place = ${JSON.stringify(place)};
    const lease = 1n << 62n;
    const writer = lease + (1n << 61n);
    let beforeLook = () => {};
    const { lstatSync } = fs;
    fs.lstatSync = (...of) => {
      beforeLook();
      return lstatSync(...of);
    };
    syncBuiltinESMExports();
    const { openFileNow } = await import("./dist/memory/open.js");
    const { Attachment } = await import("./dist/memory/attachment.js");
    const { trySetLock } = await import("./dist/memory/lock.js");
    const isLocked = (byte) => {
      const fd = fs.openSync(place.path, "r+");
      const isFree = trySetLock(fd, "write", byte, 1n);
      fs.closeSync(fd);
      return !isFree;
    };
    const kept = [];
    const tryMap = (access, told = {}) => {
      try {
        const opened = openFileNow({ ...place, ...told }, { isWriter: access === "write", isLeased: true });
        kept.push(new Attachment(opened, 0, 4096, access));
        return "mapped";
      } catch (error) {
        return error.toError?.().code ?? error.code ?? String(error);
      }
    };
    ${body}
  `;
}

/** Bun binds what it imports of node:fs for good; the client's code is the same. */
testWith(needsNodeClient)("a file is locked before it is checked, by a reader and by a writer", async () => {
  using file = makePlace();
  const seen = await runProgram(
    "node",
    {},
    toProgram(
      file.place,
      `
        const seen = {};
        for (const access of ["private", "write"]) {
          const atLook = [];
          beforeLook = () => atLook.push(isLocked(lease), isLocked(writer));
          seen[access] = [tryMap(access), ...atLook];
          beforeLook = () => {};
        }
        tell(seen);
      `,
    ),
  );
  expect(seen).toEqual({
    private: ["mapped", true, false],
    write: ["mapped", true, true],
  });
});

testWith(needsNodeClient)("a name that moves on during the check is noticed", async () => {
  using file = makePlace();
  const seen = await runProgram(
    "node",
    {},
    toProgram(
      file.place,
      `
        beforeLook = () => {
          fs.writeFileSync(place.path + ".other", Buffer.alloc(4096));
          fs.renameSync(place.path + ".other", place.path);
        };
        tell([tryMap("write"), isLocked(lease)]);
      `,
    ),
  );
  expect(seen).toEqual(["stale-ref", false]);
});

for (const runtime of Object.keys(runtimes) as Runtime[]) {
  testWith(needsNodeClient)(
    `${runtime}: what is sealed, moved on or another file is not mapped, nor kept locked`,
    async () => {
      using file = makePlace();
      const seen = await runProgram(
        runtime,
        {},
        toProgram(
          file.place,
          `
          const other = tryMap("write", { ino: String(BigInt(place.ino) + 1n) });
          const device = tryMap("write", { dev: String(BigInt(place.dev) + 1n) });
          const short = tryMap("write", { byteSize: 4097 });
          fs.chmodSync(place.path, 0o1660);
          const stock = tryMap("write");
          fs.chmodSync(place.path, 0o440);
          tell({ other, device, short, stock, sealed: tryMap("write"), isLocked: isLocked(lease), read: tryMap("private") });
        `,
        ),
      );
      expect(seen).toEqual({
        other: "stale-ref",
        device: "wrong-namespace",
        short: "mapping-failed",
        stock: "region-sealed",
        sealed: "region-sealed",
        isLocked: false,
        read: "mapped",
      });
    },
  );
}
