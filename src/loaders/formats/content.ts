/**
 * The content of a file: what it is once it is decompressed, by ranges. Of a compressed file they are best asked for in ascending
 * order: what was passed is decompressed anew from the start.
 */

import { fileLimits } from "../limits.ts";
import { toLatin1 } from "./bytes.ts";
import { decompress, type Packing } from "./decompress.ts";
import type { Compression, RangeReader } from "./format.ts";
import { invalid } from "./refusal.ts";
import { isZstd } from "./zstd-frames.ts";

export interface Content extends AsyncDisposable {
  /** Undefined of a compressed file whose content was not measured. */
  readonly byteSize: number | undefined;
  /** Fewer bytes only where the content ends. @throws TensordError `invalid-model-file` where it does so too early. */
  read(byteOffset: number, byteSize: number): Promise<Uint8Array>;
}

/** Reads all of a range. @throws TensordError `invalid-model-file` where the content ends before. */
export async function readExactly(content: Content, byteOffset: number, byteSize: number): Promise<Uint8Array> {
  const bytes = await content.read(byteOffset, byteSize);
  if (bytes.length === byteSize) return bytes;
  throw invalid(`it ends at byte ${byteOffset + bytes.length}, want at least ${byteOffset + byteSize}`);
}

/** A range of a file in pieces, of which each is read once it is asked for. */
export async function* readPieces(
  reader: RangeReader,
  byteOffset: number,
  byteSize: number,
): AsyncGenerator<Uint8Array, void, undefined> {
  const end = byteOffset + byteSize;
  for (let at = byteOffset; at < end; at += fileLimits.pieceBytes) {
    yield await readWhole(reader, at, Math.min(fileLimits.pieceBytes, end - at));
  }
}

/** A range inside of a file. @throws TensordError `invalid-model-file` where the file is shorter by now. */
async function readWhole(reader: RangeReader, byteOffset: number, byteSize: number): Promise<Uint8Array> {
  const bytes = await reader.read(byteOffset, byteSize);
  if (bytes.length === byteSize) return bytes;
  const state = `it ends at byte ${byteOffset + bytes.length} now`;
  throw invalid(`${state}, want ${reader.byteSize} as when it was opened`, "Load it again once nobody writes to it.");
}

/** What a file with these first bytes is packed with. */
export function compressionOf(begin: Uint8Array): Compression {
  if (toLatin1(begin, 3) === "\x1f\x8b\x08") return "gzip";
  return isZstd(begin) ? "zstd" : "none";
}

export function toContent(reader: RangeReader, compression: Compression): Content {
  return compression === "none" ? new PlainContent(reader) : new CompressedContent(reader, compression);
}

class PlainContent implements Content {
  readonly byteSize: number;
  readonly #reader: RangeReader;

  constructor(reader: RangeReader) {
    this.byteSize = reader.byteSize;
    this.#reader = reader;
  }

  read(byteOffset: number, byteSize: number): Promise<Uint8Array> {
    return readWhole(this.#reader, byteOffset, Math.max(0, Math.min(byteSize, this.byteSize - byteOffset)));
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

/** One at a time: a read is awaited before the next one. */
export class CompressedContent implements Content {
  readonly #reader: RangeReader;
  readonly #packing: Packing;
  #byteSize: number | undefined;
  #pieces: AsyncGenerator<Uint8Array, void, undefined> | undefined;
  /** What came out and was not asked for yet, and where in the content it begins. */
  #rest: Uint8Array = new Uint8Array(0);
  #at = 0;

  constructor(reader: RangeReader, packing: Packing) {
    this.#reader = reader;
    this.#packing = packing;
  }

  get byteSize(): number | undefined {
    return this.#byteSize;
  }

  /** Decompresses all of it, to find out how long it is. */
  async measure(): Promise<number> {
    if (this.#byteSize !== undefined) return this.#byteSize;
    let byteSize = this.#at + this.#rest.length;
    for await (const piece of this.#stream()) byteSize += piece.length;
    await this[Symbol.asyncDispose]();
    this.#byteSize = byteSize;
    return byteSize;
  }

  async read(byteOffset: number, byteSize: number): Promise<Uint8Array> {
    if (byteOffset < this.#at) await this[Symbol.asyncDispose]();
    const bytes = new Uint8Array(byteSize);
    let filled = 0;
    while (filled < byteSize) {
      // What lies before the range is let go of, what lies in it is taken.
      const passed = Math.min(this.#rest.length, byteOffset + filled - this.#at);
      const taken = this.#rest.subarray(passed, passed + byteSize - filled);
      bytes.set(taken, filled);
      filled += taken.length;
      this.#rest = this.#rest.subarray(passed + taken.length);
      this.#at += passed + taken.length;
      if (filled === byteSize) break;
      const next = await this.#stream().next();
      if (next.done === true) return bytes.subarray(0, filled);
      this.#rest = next.value;
    }
    return bytes;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pieces?.return();
    this.#pieces = undefined;
    this.#rest = new Uint8Array(0);
    this.#at = 0;
  }

  #stream(): AsyncGenerator<Uint8Array, void, undefined> {
    const { byteSize } = this.#reader;
    this.#pieces ??= decompress(readPieces(this.#reader, 0, byteSize), this.#packing, byteSize);
    return this.#pieces;
  }
}
