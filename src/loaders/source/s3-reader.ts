/**
 * An object as parsers and decoders read it: by ranges in ascending order, mostly. Who goes on where the last range ended gets ever larger
 * blocks, and the next one is on its way meanwhile; no more than a few are in memory.
 */

import type { RangeReader } from "../formats/format.ts";
import { fileLimits } from "../limits.ts";
import type { S3Part } from "./s3-options.ts";
import type { S3Source } from "./s3-source.ts";

interface Block {
  readonly from: number;
  readonly to: number;
  /** Whether it begins where the one before it ended. */
  readonly goesOn: boolean;
  readonly bytes: Promise<Uint8Array>;
}

/** The beginning, which was read at the opening, and two more. */
const keptBlocks = 3;

export class S3Reader implements RangeReader {
  readonly byteSize: number;
  readonly #source: S3Source;
  readonly #part: S3Part;
  readonly #signal: AbortSignal;
  #blocks: readonly Block[];
  /** How much is read ahead of who goes on. */
  #blockBytes: number = fileLimits.prefixBytes;

  /** @param begin the first bytes. @param signal ends what is read. */
  constructor(source: S3Source, part: S3Part, begin: Uint8Array, signal: AbortSignal) {
    this.#source = source;
    this.#part = part;
    this.#signal = signal;
    this.byteSize = part.byteSize;
    this.#blocks = [{ from: 0, to: begin.length, goesOn: false, bytes: Promise.resolve(begin) }];
  }

  async read(byteOffset: number, byteSize: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(Math.max(0, Math.min(byteSize, this.byteSize - byteOffset)));
    for (let done = 0; done < bytes.length; ) {
      const at = byteOffset + done;
      const block = this.#blocks.find(({ from, to }) => from <= at && at < to) ?? this.#fetch(at, bytes.length - done);
      // Of who goes on, what comes after the newest one is wanted soon.
      if (block.goesOn && block === this.#blocks.at(-1) && block.to < this.byteSize) this.#fetch(block.to, 0);
      const part = (await block.bytes).subarray(at - block.from, at - block.from + bytes.length - done);
      bytes.set(part, done);
      done += part.length;
    }
    return bytes;
  }

  #fetch(from: number, wanted: number): Block {
    const goesOn = this.#blocks.at(-1)?.to === from;
    this.#blockBytes = goesOn ? Math.min(2 * this.#blockBytes, fileLimits.objectRangeBytes) : fileLimits.prefixBytes;
    const blockBytes = Math.max(Math.min(wanted, fileLimits.objectRangeBytes), this.#blockBytes);
    const to = Math.min(this.byteSize, from + blockBytes);
    const block = { from, to, goesOn, bytes: this.#load(from, to) };
    // Who comes for it hears of it.
    block.bytes.catch(() => {});
    const [begin, ...others] = this.#blocks;
    this.#blocks = [...(begin === undefined ? [] : [begin]), ...others.slice(2 - keptBlocks), block];
    return block;
  }

  async #load(from: number, to: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(to - from);
    let done = 0;
    const take = (piece: Uint8Array) => {
      bytes.set(piece, done);
      done += piece.length;
    };
    await this.#source.read(this.#part, from, to - from, take, this.#signal);
    return bytes;
  }
}
