/** XXH3-64 trees as Python's `xxhash` 4.1.0 computed them: an implementation that is not the server's. */

import { MiB } from "../../../src/memory/limits.ts";

/** Byte `i` of the data is `(131 * i + 7) % 256`. Sizes on both sides of each branch of XXH3. */
export const patternChecksums: readonly (readonly [byteSize: number, value: string])[] = [
  [0, "2d06800538d394c2"],
  [1, "4c5cca45d0f4811f"],
  [16, "86abf6baccea0858"],
  [17, "b58bf5dc5022d071"],
  [128, "10d17f72c0ccba41"],
  [129, "1648bdc3db49d1a2"],
  [240, "b6cfaf343fab81e6"],
  [241, "956cae592c67279e"],
  [1024, "70bd377d9574f4bb"],
  [4096, "9ddd66c14af0daff"],
  [MiB, "6f7c82505ffbc516"],
];

/** Every byte is 1: one chunk, one byte more, two chunks, and a short third one. */
export const onesChecksums: readonly (readonly [byteSize: number, value: string])[] = [
  [64 * MiB, "fcf1e5fffdc6d7d1"],
  [64 * MiB + 1, "e1e4112ff76ada3b"],
  [128 * MiB, "6532dbbd33003be8"],
  [128 * MiB + 12_345, "9a7c8b3d90fec644"],
];

export function toPattern(byteSize: number): Uint8Array {
  const bytes = new Uint8Array(byteSize);
  for (let index = 0; index < byteSize; index++) bytes[index] = 131 * index + 7;
  return bytes;
}
