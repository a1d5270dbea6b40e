/** Several ranges in one answer: `multipart/byteranges` (RFC 9110, section 14.6). Pure. */

import type { ByteRange } from "./byte-range.ts";

export const multipartMediaType = "multipart/byteranges";

/**
 * The body, with `parts` in the order of `ranges`.
 * @param boundary something that is in none of them.
 * @param size of the whole that the ranges are of.
 */
export function toMultipart(
  boundary: string,
  ranges: readonly ByteRange[],
  parts: readonly Uint8Array[],
  size: number,
): Uint8Array<ArrayBuffer> {
  const pieces = ranges.flatMap(({ first, last }, index) => {
    const head = [
      `--${boundary}`,
      "Content-Type: application/octet-stream",
      `Content-Range: ${toContentRange({ first, last }, size)}`,
    ];
    return [Buffer.from(`${index === 0 ? "" : "\r\n"}${head.join("\r\n")}\r\n\r\n`), parts[index] ?? new Uint8Array()];
  });
  return Buffer.concat([...pieces, Buffer.from(`\r\n--${boundary}--\r\n`)]);
}

export function toContentRange({ first, last }: ByteRange, size: number): string {
  return `bytes ${first}-${last}/${size}`;
}
