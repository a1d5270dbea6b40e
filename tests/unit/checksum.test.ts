import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { toChecksum, toChunks } from "../../src/memory/layout/checksum.ts";
import { MiB } from "../../src/memory/limits.ts";
import { onesChecksums, patternChecksums, toPattern } from "../contract/support/checksum.ts";

const chunkBytes = 64 * MiB;

/** The checksum of bytes in memory, by the same two steps that the server takes over a file. */
function checksumOf(bytes: Uint8Array): string {
  const hashes = [...toChunks(0, bytes.length)].map(({ byteOffset, byteSize }) =>
    Bun.hash.xxHash3(bytes.subarray(byteOffset, byteOffset + byteSize)),
  );
  return toChecksum(hashes).value;
}

describe("toChecksum", () => {
  for (const [byteSize, value] of patternChecksums) {
    test(`agrees with Python's xxhash on ${byteSize} bytes`, () => {
      expect(checksumOf(toPattern(byteSize))).toBe(value);
    });
  }

  for (const [byteSize, value] of onesChecksums) {
    test(`agrees with Python's xxhash on the tree over ${byteSize} bytes`, () => {
      expect(checksumOf(new Uint8Array(byteSize).fill(1))).toBe(value);
    });
  }

  test("says how it was taken, in 16 digits, leading zeros too", () => {
    expect(toChecksum([0x1fn])).toEqual({
      algorithm: "xxh3-64-tree",
      chunkBytes,
      value: "000000000000001f",
    });
    expect(toChecksum([0n]).value).toBe("0".repeat(16));
    expect(toChecksum([2n ** 64n - 1n]).value).toBe("f".repeat(16));
  });

  test("depends on the order of chunks and on each of them", () => {
    const values = [[1n, 2n], [2n, 1n], [1n, 2n, 0n], [1n], [2n], []].map((hashes) => toChecksum(hashes).value);
    expect(new Set(values).size).toBe(values.length);
  });
});

describe("toChunks", () => {
  test("cuts any range into chunks that touch, all whole but the last, and covers it", () => {
    fc.assert(
      fc.property(fc.nat(2 ** 30), fc.nat(20 * chunkBytes), (byteOffset, byteSize) => {
        const chunks = [...toChunks(byteOffset, byteSize)];
        let end = byteOffset;
        for (const chunk of chunks) {
          expect(chunk.byteOffset).toBe(end);
          end += chunk.byteSize;
        }
        expect(end).toBe(byteOffset + byteSize);
        expect(chunks.slice(0, -1).every((chunk) => chunk.byteSize === chunkBytes)).toBeTrue();
        expect(chunks.every((chunk) => chunk.byteSize > 0 && chunk.byteSize <= chunkBytes)).toBeTrue();
      }),
    );
  });

  test("cuts at the chunk's size and not one byte earlier or later", () => {
    const sizes = (byteSize: number) => [...toChunks(0, byteSize)].map((chunk) => chunk.byteSize);
    expect(sizes(0)).toEqual([]);
    expect(sizes(1)).toEqual([1]);
    expect(sizes(chunkBytes)).toEqual([chunkBytes]);
    expect(sizes(chunkBytes + 1)).toEqual([chunkBytes, 1]);
    expect(sizes(2 * chunkBytes)).toEqual([chunkBytes, chunkBytes]);
  });
});
