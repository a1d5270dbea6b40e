/**
 * The tree checksum of a region's data bytes, as `docs/protocol.md` specifies it: how chunk hashes become one value.
 * Reading and hashing a chunk is a lane's job.
 */

import { limits } from "../limits.ts";

export const checksumAlgorithm = "xxh3-64-tree";

export interface Checksum {
  readonly algorithm: typeof checksumAlgorithm;
  readonly chunkBytes: number;
  /** 16 hexadecimal digits. */
  readonly value: string;
}

/** A part of a file. */
export interface Chunk {
  readonly byteOffset: number;
  readonly byteSize: number;
}

/** Cuts `[byteOffset, byteOffset + byteSize)` into chunks; no bytes have no chunk. */
export function* toChunks(byteOffset: number, byteSize: number): Generator<Chunk> {
  for (let done = 0; done < byteSize; done += limits.checksumChunkBytes) {
    yield { byteOffset: byteOffset + done, byteSize: Math.min(limits.checksumChunkBytes, byteSize - done) };
  }
}

/** XXH3-64 over the little-endian chunk hashes; a single chunk stands for itself, no chunk is the hash of nothing. */
export function toChecksum(chunkHashes: readonly bigint[]): Checksum {
  return { algorithm: checksumAlgorithm, chunkBytes: limits.checksumChunkBytes, value: toValue(chunkHashes) };
}

function toValue(chunkHashes: readonly bigint[]): string {
  const [first] = chunkHashes;
  if (chunkHashes.length === 1 && first !== undefined) return toHex(first);
  const hashes = Buffer.alloc(chunkHashes.length * 8);
  for (const [index, hash] of chunkHashes.entries()) hashes.writeBigUInt64LE(hash, index * 8);
  return toHex(Bun.hash.xxHash3(hashes));
}

function toHex(hash: bigint): string {
  return hash.toString(16).padStart(16, "0");
}
