/**
 * Every bound of model files and of how they are read, one line each; those of regions, which hold for what is loaded as well, are in
 * `src/memory/limits.ts`.
 */

import { GiB, KiB, MiB } from "../memory/limits.ts";

export const fileLimits = {
  /** Folders whose files may be loaded, and the characters that say where one is. */
  modelRoots: 64,
  uriCharacters: 4096,
  /** What is read of a file at first: most headers are shorter. How many of those bytes say what it is: of a tar archive the 262nd. */
  prefixBytes: 64 * KiB,
  sniffedBytes: 512,
  /** What a file says of itself, as far as it is kept: characters, values of a list; and how deep lists nest. */
  metadataCharacters: 1 * MiB,
  listValues: 64,
  listDepth: 4,
  /** NumPy reads no longer header either, without being told to (`max_header_size`). */
  npyHeaderBytes: 10_000,
  /** What is read of a .npy file in an archive: its longest header, and what comes before that. */
  npyPrefixBytes: 10_012,
  /** Files of a sharded model, the size of its index, which is read whole, and the tensors that it names. */
  shards: 1000,
  indexBytes: 32 * MiB,
  shardedTensors: 1_000_000,
  /** How many parts of a file are copied at a time, each by a Worker with 64 MiB of its own while it copies. */
  copyingLanes: 2,
  /** Of how many other files it is kept in mind whether they have a region's bytes. */
  comparedFiles: 64,
  /** How many loads under way a load waits for, one after the other, since they may bring its bytes. */
  awaitedLoads: 8,
  /** Files are decompressed from pieces of this size, into pieces of it. */
  pieceBytes: 256 * KiB,
  /** What may come out of a compressed file: so many times its size, or so much where that is more; and at most so much. */
  decompressedRatio: 200,
  decompressedSmallBytes: 64 * MiB,
  decompressedBytes: 1024 * GiB,
  /** Of an object in S3: the bytes of its key, as S3 bounds them. */
  objectKeyBytes: 1024,
  /** It is read by ranges of this size, so many at a time of one load, and of all. The runtime may hold as much of each as has come. */
  objectRangeBytes: 8 * MiB,
  objectRanges: 6,
  objectRequests: 16,
  /** Of all loads no more than one for so many descriptors that the server may open. */
  descriptorsPerObjectRequest: 32,
  /** How often a range is asked for before it is given up, what is waited for before the next time, doubled each time, and at most. */
  objectAttempts: 5,
  objectPauseMs: 250,
  objectLongestPauseMs: 5_000,
  /** After so long without a byte a request is given up. */
  objectStallMs: 30_000,
  /** After so long in all, too: some 30 KB/s are the least. What has come is not asked for again. */
  objectRangeMs: 300_000,
  /** How long a signature counts; each request has its own. */
  objectSignatureSeconds: 900,
  /** What is read of an answer that refuses. */
  objectRefusalBytes: 64 * KiB,
} as const;
