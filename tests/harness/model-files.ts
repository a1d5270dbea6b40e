/** Model files as tests make and read them: bytes in memory with a reader over them, and failures taken for a look. */

import type { RangeReader } from "../../src/loaders/formats/format.ts";
import { TensordError } from "../../src/memory/error.ts";

export interface CountedReader extends RangeReader {
  /** How many bytes were asked for, all reads together. */
  readonly readBytes: number;
}

/** A reader over bytes. @param byteSize what the file had when it was opened, if it has shrunk since. */
export function readerOf(bytes: Uint8Array, byteSize = bytes.length): CountedReader {
  let readBytes = 0;
  return {
    byteSize,
    get readBytes() {
      return readBytes;
    },
    read(byteOffset, size) {
      readBytes += size;
      return Promise.resolve(bytes.slice(byteOffset, byteOffset + size));
    },
  };
}

/** What `act` is refused with. */
export async function refusalOf(act: () => Promise<unknown>): Promise<TensordError> {
  try {
    await act();
  } catch (error) {
    if (error instanceof TensordError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

/** A safetensors file of a header and zeros. */
export function safetensorsFile(header: string, dataBytes: number): Uint8Array {
  const text = new TextEncoder().encode(header);
  const bytes = new Uint8Array(8 + text.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length), true);
  bytes.set(text, 8);
  return bytes;
}
