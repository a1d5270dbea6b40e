/**
 * Whether a stream of zstd frames is whole: the decoder of the runtime ends in silence where the last frame is broken off, and
 * passes over what comes after it. It looks at the frames' outlines alone (RFC 8878, section 3) and decodes nothing.
 */

import assert from "node:assert/strict";
import { toBuffer } from "./bytes.ts";
import { invalid } from "./refusal.ts";

const frameMagic = 0xfd2f_b528;
/** Of a frame that is no data, in sixteen forms. */
const skippableMagic = 0x184d_2a50;
const dictionaryIdBytes = [0, 1, 2, 4] as const;
const contentSizeBytes = [0, 2, 4, 8] as const;

type Field = "magic" | "skippable-size" | "descriptor" | "block";
const fieldBytes: Readonly<Record<Field, number>> = { magic: 4, "skippable-size": 4, descriptor: 1, block: 3 };

/** Whether a file with these first bytes is zstd: a frame, or one that may stand before it and has no data. */
export function isZstd(bytes: Uint8Array): boolean {
  if (bytes.length < fieldBytes.magic) return false;
  const magic = toBuffer(bytes).readUInt32LE();
  return magic === frameMagic || isSkippable(magic);
}

function isSkippable(magic: number): boolean {
  return magic - (magic % 16) === skippableMagic;
}

export class ZstdFrames {
  /** The field that comes next, as much of it as there is, and what is to be passed over before it. */
  #field: Field = "magic";
  readonly #held = Buffer.alloc(4);
  #heldBytes = 0;
  #skipBytes = 0;
  #hasChecksum = false;

  /** The next bytes of the stream. @throws TensordError `invalid-model-file` of what is no frame. */
  add(bytes: Uint8Array): void {
    let at = 0;
    while (at < bytes.length) {
      const skipped = Math.min(this.#skipBytes, bytes.length - at);
      this.#skipBytes -= skipped;
      at += skipped;
      if (at === bytes.length) return;
      this.#held[this.#heldBytes] = bytes[at] as number;
      this.#heldBytes += 1;
      at += 1;
      if (this.#heldBytes < fieldBytes[this.#field]) continue;
      this.#heldBytes = 0;
      this.#read(this.#field);
    }
  }

  /** Nothing follows. @throws TensordError `invalid-model-file` where more had to. */
  end(): void {
    if (this.#field === "magic" && this.#heldBytes === 0 && this.#skipBytes === 0) return;
    throw invalid("its zstd data is broken off, want whole frames");
  }

  #read(field: Field): void {
    if (field === "magic") this.#readMagic(this.#held.readUInt32LE());
    else if (field === "skippable-size") this.#pass(this.#held.readUInt32LE(), "magic");
    else if (field === "descriptor") this.#readDescriptor(this.#held.readUInt8());
    else this.#readBlock(this.#held.readUIntLE(0, 3));
  }

  #pass(byteSize: number, next: Field): void {
    assert(this.#skipBytes === 0);
    this.#skipBytes = byteSize;
    this.#field = next;
  }

  #readMagic(magic: number): void {
    if (magic === frameMagic) this.#field = "descriptor";
    else if (isSkippable(magic)) this.#field = "skippable-size";
    else throw invalid("after its zstd data there are bytes of something else, want the end of the file");
  }

  #readDescriptor(descriptor: number): void {
    const isSingle = (descriptor & 0x20) !== 0;
    this.#hasChecksum = (descriptor & 4) !== 0;
    const dictionary = dictionaryIdBytes[(descriptor & 3) as 0 | 1 | 2 | 3];
    const size = contentSizeBytes[(descriptor >> 6) as 0 | 1 | 2 | 3];
    this.#pass((isSingle ? 0 : 1) + dictionary + (size === 0 && isSingle ? 1 : size), "block");
  }

  #readBlock(header: number): void {
    const isLast = (header & 1) === 1;
    // A block of one byte, repeated, has that byte and no more.
    const byteSize = ((header >> 1) & 3) === 1 ? 1 : header >> 3;
    if (isLast) this.#pass(byteSize + (this.#hasChecksum ? 4 : 0), "magic");
    else this.#pass(byteSize, "block");
  }
}
