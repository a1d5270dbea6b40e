/** How a file becomes a region, and what is kept of one that is mapped: chosen and read without a file system. */

import { describe, expect, test } from "bun:test";
import { chooseMode, isRemote, type WantedMode } from "../../src/loaders/mode.ts";
import { findChange, isAllowed, type Origin, parseRecord, toRecord } from "../../src/memory/storage/file/origin.ts";

const [ext4, nfs, fuse, overlay, unknown] = [0xef53, 0x6969, 0x65735546, 0x794c7630, 0x1234];
const server = 1000;

interface Asked {
  readonly uid?: number;
  readonly mode?: number;
  readonly fileSystem?: number;
  readonly compression?: "none" | "gzip";
  readonly pieces?: Float64Array | undefined;
}

function choose(wanted: WantedMode | undefined, file: Asked = {}, isTargetSaid = false) {
  const { uid = server, mode = 0o100644, fileSystem = ext4, compression = "none", pieces } = file;
  const standing = { uid, mode, fileSystem };
  const { mode: chosen, reason } = chooseMode(
    wanted,
    { path: "/w", compression, pieces, standing },
    isTargetSaid,
    server,
  );
  return `${chosen}: ${reason}`;
}

describe("auto", () => {
  const cases: readonly [file: Asked, isTargetSaid: boolean, said: string][] = [
    [{}, false, "map: it lies on ext4, as it is read, and no worker may write to it"],
    [{ uid: 0, fileSystem: overlay }, false, "map: it lies on overlay, as it is read, and no worker may write to it"],
    [{}, true, "copy: it was said what the region is made of"],
    [{ fileSystem: nfs }, false, "copy: its file system (nfs) is none that is known as local"],
    [{ fileSystem: fuse }, false, "copy: its file system (fuse) is none that is known as local"],
    [{ fileSystem: unknown }, false, "copy: its file system (0x1234) is none that is known as local"],
    [{ uid: 1001 }, false, "copy: uid 1001 owns it, and may write to it"],
    [{ mode: 0o100664 }, false, "copy: its group may write to it"],
    [{ mode: 0o100646 }, false, "copy: everybody may write to it"],
    [{ compression: "gzip" }, true, "copy: it is compressed (gzip)"],
    [{ pieces: new Float64Array(4) }, false, "copy: the model is in several files"],
  ];
  for (const [file, isTargetSaid, said] of cases) {
    test(said, () => expect(choose("auto", file, isTargetSaid)).toBe(said));
  }
});

test("what is asked for is done, where it can be", () => {
  const asked = "it was asked for";
  expect(choose("map", { uid: 7, mode: 0o100666, fileSystem: nfs })).toBe(`map: ${asked}`);
  expect(choose("copy", { compression: "gzip" })).toBe(`copy: ${asked}`);
  expect(choose(undefined, { compression: "gzip" })).toBe("copy: that is the default");
  expect(() => choose("map", { compression: "gzip" })).toThrow("it is compressed (gzip), and so it cannot be mapped");
  expect(() => choose("map", { pieces: new Float64Array(4) })).toThrow("the model is in several files");
});

test("a number of statfs with its highest bit set is the same file system", () => {
  expect(isRemote({ fileSystem: 0x9123683e | 0 })).toBeFalse();
  expect(isRemote({ fileSystem: 0xff534d42 | 0 })).toBeTrue();
});

const origin: Origin = {
  ...{ dev: "12", ino: "18446744073709551615", root: "/models", below: "a b/ü.safetensors" },
  ...{ byteSize: 2 ** 40, mtimeNs: "1700000000123456789", isRemote: false },
};

test("a record is read as it was written, and no other text is one", () => {
  expect(parseRecord(toRecord(origin))).toEqual(origin);
  const text = toRecord(origin);
  for (let end = 0; end < text.length; end++) expect(parseRecord(text.slice(0, end))).toBeUndefined();
  const wrong = [
    { v: 2 },
    { root: "" },
    { below: "a\0b" },
    { dev: 12 },
    { ino: "-1" },
    { byteSize: 0.5 },
    { isRemote: 1 },
    { mtimeNs: "x" },
  ];
  for (const change of wrong) expect(parseRecord(JSON.stringify({ v: 1, ...origin, ...change }))).toBeUndefined();
  for (const other of ["null", "[]", "1", '"x"', ""]) expect(parseRecord(other)).toBeUndefined();
});

test("a file differs by its identity, its size and when it was written, and by nothing else", () => {
  const status = { dev: 12n, ino: 2n ** 64n - 1n, size: 2n ** 40n, mtimeNs: 1700000000123456789n };
  expect(findChange(origin, status)).toBeNull();
  expect(findChange(origin, undefined)).toBe("gone");
  expect(findChange(origin, { ...status, dev: 13n })).toBe("replaced");
  expect(findChange(origin, { ...status, ino: 1n })).toBe("replaced");
  expect(findChange(origin, { ...status, size: 0n })).toBe("modified");
  expect(findChange(origin, { ...status, mtimeNs: status.mtimeNs + 1n })).toBe("modified");
});

test("a folder is allowed if it is named, or below one that is", () => {
  const roots = ["/models", "/data/hf"];
  for (const root of ["/models", "/models/a", "/data/hf/x/y"]) expect(isAllowed(root, roots)).toBeTrue();
  for (const root of ["/", "/model", "/models2", "/data", "/models/../etc"]) expect(isAllowed(root, roots)).toBeFalse();
  expect(isAllowed("/models", [])).toBeFalse();
});
