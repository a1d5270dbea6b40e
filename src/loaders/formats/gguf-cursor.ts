/** A place in the beginning of a GGUF file, of which the rest may not be read yet. Pure. */

import { invalid } from "./refusal.ts";

/** Thrown where the bytes that were read end: `parseGguf` asks for more. */
export class PrefixEnds {
  readonly wantedBytes: number;

  constructor(wantedBytes: number) {
    this.wantedBytes = wantedBytes;
  }
}

export class GgufCursor {
  readonly #view: DataView;
  readonly #bytes: Uint8Array;
  readonly #byteSize: number;
  readonly #decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  #at = 0;

  /** @param byteSize of the whole content. */
  constructor(prefix: Uint8Array, byteSize: number) {
    this.#bytes = prefix;
    this.#view = new DataView(prefix.buffer, prefix.byteOffset, prefix.byteLength);
    this.#byteSize = byteSize;
  }

  get at(): number {
    return this.#at;
  }

  /** Goes on by `byteSize` and says where it was. @throws PrefixEnds, or TensordError where the content itself ends before. */
  skip(byteSize: number): number {
    const from = this.#at;
    this.#checkInside(byteSize);
    if (from + byteSize > this.#bytes.length) throw new PrefixEnds(from + byteSize);
    this.#at = from + byteSize;
    return from;
  }

  u8 = (): number => this.#view.getUint8(this.skip(1));
  i8 = (): number => this.#view.getInt8(this.skip(1));
  u16 = (): number => this.#view.getUint16(this.skip(2), true);
  i16 = (): number => this.#view.getInt16(this.skip(2), true);
  u32 = (): number => this.#view.getUint32(this.skip(4), true);
  i32 = (): number => this.#view.getInt32(this.skip(4), true);
  u64 = (): bigint => this.#view.getBigUint64(this.skip(8), true);
  i64 = (): bigint => this.#view.getBigInt64(this.skip(8), true);
  f32 = (): number => this.#view.getFloat32(this.skip(4), true);
  f64 = (): number => this.#view.getFloat64(this.skip(8), true);

  /**
   * A count of what takes `bytesEach` at least, all of which has to lie in the content: what a file says there is, is there.
   * @param maximum of ours.
   */
  count(what: string, bytesEach: number, maximum = Number.MAX_SAFE_INTEGER): number {
    const count = this.u64();
    const there = Math.min(maximum, Math.floor((this.#byteSize - this.#at) / bytesEach));
    if (count > BigInt(there)) throw invalid(`at byte ${this.#at - 8} it has ${count} ${what}, want at most ${there}`);
    return Number(count);
  }

  text(what: string): string {
    const byteSize = this.count(`bytes of ${what}`, 1);
    const from = this.skip(byteSize);
    try {
      return this.#decoder.decode(this.#bytes.subarray(from, from + byteSize));
    } catch (cause) {
      throw invalid(`${what} at byte ${from} is not UTF-8, want text`, undefined, cause);
    }
  }

  /** Bytes that were passed, each as the character of its number. */
  readLatin1(from: number, byteSize: number): string {
    return String.fromCharCode(...this.#bytes.subarray(from, from + byteSize));
  }

  #checkInside(byteSize: number): void {
    if (this.#at + byteSize <= this.#byteSize) return;
    throw invalid(
      `its header is broken off: it goes on to byte ${this.#at + byteSize} and further, want at most ${this.#byteSize}`,
    );
  }
}
