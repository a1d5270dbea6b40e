/** Bytes in regions, as a test writes them and finds them again: through the file, without a mapping and without a lease. */

import { closeSync, constants, fstatSync, lstatSync, openSync, readSync, writeSync } from "node:fs";
import type { Region } from "./server-api.ts";

const { O_NOFOLLOW, O_RDONLY, O_RDWR } = constants;

/** Fills the region's data with bytes that follow from `seed`. */
export function writeContent(region: Region, seed: number): void {
  const fd = openSync(region.storage.path, O_RDWR | O_NOFOLLOW);
  try {
    writeOpened(fd, region, seed);
  } finally {
    closeSync(fd);
  }
}

/** As `writeContent`, of memory that a descriptor leads to. */
export function writeOpened(fd: number, { storage, tensors }: Region, seed: number): void {
  const begin = Math.min(...tensors.map((tensor) => tensor.byte_offset));
  const block = Buffer.alloc(64 * 1024);
  for (let at = 0; at < block.length; at += 4) block.writeUInt32LE(Math.imul(at + 1, 2654435761 ^ seed) >>> 0, at);
  for (let at = begin; at < storage.byte_size; ) {
    at += writeSync(fd, block, 0, Math.min(block.length, storage.byte_size - at), at);
  }
}

/** What the mode of a sealed region's file shows for as long as its name means it, as it was said to be. */
export const currentMark = 0o100;

/** What a crash must not change of a region's file: of its mode all but the current mark. */
export interface Content {
  readonly ino: string;
  readonly mode: number;
  readonly byteSize: number;
  readonly hash: string;
}

/** The file that stands at `path` now. Throws what open(2) says if there is none. */
export function readContent(path: string): Content {
  const fd = openSync(path, O_RDONLY | O_NOFOLLOW);
  try {
    return readOpened(fd);
  } finally {
    closeSync(fd);
  }
}

/** As `readContent`, of memory that a descriptor leads to. */
export function readOpened(fd: number): Content {
  const stat = fstatSync(fd, { bigint: true });
  const hasher = new Bun.CryptoHasher("blake2b256");
  const block = Buffer.alloc(1024 * 1024);
  for (let at = 0, got = 1; got > 0; at += got) {
    got = readSync(fd, block, 0, block.length, at);
    hasher.update(block.subarray(0, got));
  }
  return {
    ino: stat.ino.toString(),
    mode: Number(stat.mode & 0o7777n) & ~currentMark,
    byteSize: Number(stat.size),
    hash: hasher.digest("hex"),
  };
}

/** Whether all of it is zeros, which megabytes are asked at once: each is what its neighbour is. */
export function isZeros(bytes: Buffer): boolean {
  return bytes.length === 0 || (bytes[0] === 0 && bytes.subarray(1).equals(bytes.subarray(0, -1)));
}

/** Whether anything, a dangling link included, stands at `path`. */
export function exists(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}
