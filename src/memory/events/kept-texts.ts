/**
 * A ring of texts as bytes, which come in order and go in the same one. They lie outside of the collected heap: an object that stays
 * among a thousand that do not keeps their block from being given back, and a bounded history would be most of what a busy hour leaves.
 */

import { KiB } from "../limits.ts";

/** Texts share a piece of memory of this size; one that is longer has its own. */
const chunkBytes = 64 * KiB;

interface Chunk {
  readonly bytes: Buffer;
  /** Texts in it that are still kept. */
  texts: number;
}

export class KeptTexts {
  readonly #chunks: (Chunk | undefined)[] = [];
  readonly #starts: Uint32Array;
  readonly #lengths: Uint32Array;
  /** Where the next text goes, if it fits. */
  #open: Chunk = createChunk(0);
  #used = 0;
  /** One that is empty again. */
  #spare: Chunk | undefined;

  /** @param slots how many texts there may be. */
  constructor(slots: number) {
    this.#starts = new Uint32Array(slots);
    this.#lengths = new Uint32Array(slots);
  }

  /** Keeps `text`, of whole characters, in a slot that is free. */
  put(slot: number, text: string): void {
    // No character has more than three bytes for each of its code units.
    const mostBytes = text.length * 3;
    if (mostBytes > this.#open.bytes.length - this.#used)
      this.#begin(mostBytes > chunkBytes ? Buffer.byteLength(text) : 0);
    const length = this.#open.bytes.write(text, this.#used);
    this.#chunks[slot] = this.#open;
    this.#starts[slot] = this.#used;
    this.#lengths[slot] = length;
    this.#open.texts += 1;
    this.#used += length;
  }

  #begin(leastBytes: number): void {
    const isUsual = leastBytes <= chunkBytes;
    if (this.#open.texts === 0 && isUsual && this.#open.bytes.length === chunkBytes) {
      this.#used = 0;
      return;
    }
    this.#open = (isUsual ? this.#spare : undefined) ?? createChunk(Math.max(leastBytes, chunkBytes));
    if (isUsual) this.#spare = undefined;
    this.#used = 0;
  }

  /** The text in a slot that has one. */
  at(slot: number): string {
    const chunk = this.#chunks[slot];
    if (chunk === undefined) throw new RangeError(`slot ${slot} has no text`);
    const start = this.#starts[slot] ?? 0;
    return chunk.bytes.toString("utf8", start, start + (this.#lengths[slot] ?? 0));
  }

  /** The slot is free from here on. */
  clear(slot: number): void {
    const chunk = this.#chunks[slot];
    this.#chunks[slot] = undefined;
    if (chunk === undefined) return;
    chunk.texts -= 1;
    if (chunk.texts === 0 && chunk !== this.#open && chunk.bytes.length === chunkBytes) this.#spare = chunk;
  }
}

function createChunk(byteSize: number): Chunk {
  return { bytes: Buffer.allocUnsafeSlow(byteSize), texts: 0 };
}
