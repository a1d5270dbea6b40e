/** What the kernel writes of a watched directory, and what is made of it. */

import { describe, expect, test } from "bun:test";
import { createToken, toFileName } from "../../src/memory/naming.ts";
import { findLost } from "../../src/memory/storage/name-records.ts";

/** struct inotify_event with its name, padded with NULs to a multiple of 16 as the kernel does. */
function record(name: string, mask = 0x200): Buffer {
  const byteSize = name === "" ? 0 : Math.ceil((Buffer.byteLength(name) + 1) / 16) * 16;
  const bytes = Buffer.alloc(16 + byteSize);
  bytes.writeInt32LE(1, 0);
  bytes.writeUInt32LE(mask, 4);
  bytes.writeUInt32LE(byteSize, 12);
  bytes.write(name, 16);
  return bytes;
}

describe("records of lost names", () => {
  test("give each token of the instance once, whatever lies between them", () => {
    const [one, two] = [createToken(), createToken()];
    const names = [
      "x",
      toFileName("a", one),
      "tensord.a.",
      "ü".repeat(100),
      toFileName("a", two),
      toFileName("a", one),
    ];
    expect(findLost(Buffer.concat(names.map((name) => record(name))), "a")).toEqual({
      tokens: [one, two],
      isOverflow: false,
    });
  });

  test("of strangers, of other instances and of what only looks like a name give nothing", () => {
    const token = createToken();
    const names = [
      "stranger",
      toFileName("b", token),
      `${toFileName("a", token)}x`,
      token,
      `x${toFileName("a", token)}`,
    ];
    expect(findLost(Buffer.concat(names.map((name) => record(name))), "a").tokens).toEqual([]);
  });

  test("say that the kernel dropped some, with what came beside that", () => {
    const token = createToken();
    const overflow = record("", 0x4000);
    expect(findLost(Buffer.concat([record(toFileName("a", token)), overflow]), "a")).toEqual({
      tokens: [token],
      isOverflow: true,
    });
  });

  test("whose name fills its place to the end are read to there", () => {
    const token = createToken();
    const name = toFileName("a".repeat(32), token);
    const bytes = Buffer.concat([record(name).subarray(0, 16 + Buffer.byteLength(name)), record("next")]);
    bytes.writeUInt32LE(Buffer.byteLength(name), 12);
    expect(findLost(bytes, "a".repeat(32)).tokens).toEqual([token]);
  });
});
