/** Bytes looked at in other ways. Pure. */

/** The same memory. */
export function toBuffer({ buffer, byteOffset, byteLength }: Uint8Array): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength);
}

/** Up to `byteSize` bytes from the first, each as the character of its number. */
export function toLatin1(bytes: Uint8Array, byteSize: number): string {
  return toBuffer(bytes).toString("latin1", 0, byteSize);
}
