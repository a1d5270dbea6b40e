/**
 * The owner's side of a ring's bell: entries that tell the others what was sent, the records in which they answer, and the word at which
 * it waits for a free slot (docs/protocol.md, "The bell"). It knows nothing of slots' locks.
 */

import { TensordError } from "../errors.ts";
import type { TensorInfo } from "../http/wire.ts";
import type { Attachment } from "../memory/attachment.ts";
import { isChangedSoon, wakeAll } from "../memory/futex.ts";
import { waitAt } from "../memory/futex-waits.ts";
import { viewAt } from "../memory/libc.ts";
import { type TensorReference, toReference } from "../regions/reference.ts";
import { type AnswerRecord, parseRecord, recordBytes } from "./answer-record.ts";
import { type BellLayout, entryBytes, toBellLayout, toHeader } from "./bell-layout.ts";

/** As often an owner without a free slot looks again: what a dead process lets go of rings nothing. */
const wantMs = 10;

/** The bell of a ring that this process made. After `close` it throws `closed`. */
export class Bell {
  readonly reference: TensorReference;
  readonly #layout: BellLayout;
  readonly #address: bigint;
  #bytes: Buffer;
  #words: Int32Array;
  #longs: BigUint64Array;
  /** Counted here: what is in the file others can write. */
  #tail = 0;
  #wanted = 0;
  #waiters = 0;
  #isClosed = false;

  /** Writes down what the ring is. @throws TensordError `server-fault` if the bell lies elsewhere than it must */
  constructor(attachment: Attachment, tensor: TensorInfo, slots: number, slotBytes: number) {
    const layout = toBellLayout(slots, slotBytes);
    if (tensor.byteOffset !== layout.byteOffset || tensor.byteSize !== layout.byteSize) {
      throw new TensordError(
        "server-fault",
        `Cannot make a ring: its bell has ${tensor.byteSize} bytes at ${tensor.byteOffset}, want ${layout.byteSize} at ` +
          `${layout.byteOffset}`,
      );
    }
    this.#layout = layout;
    this.reference = toReference(attachment.place, tensor);
    const size = Math.floor((layout.byteOffset + layout.byteSize - layout.base) / 8) * 8;
    this.#address = attachment.addressOf(layout.base, size);
    // Nobody else sees these: they need not keep what is mapped, and go with it.
    const memory = viewAt(this.#address, size);
    this.#bytes = Buffer.from(memory);
    this.#words = new Int32Array(memory);
    this.#longs = new BigUint64Array(memory);
    this.#bytes.set(toHeader(layout));
  }

  /** Writes an entry, and wakes those who receive. @throws TensordError `closed` */
  ring(entry: Buffer): void {
    this.check();
    const { entries, firstEntry, base } = this.#layout;
    this.#bytes.set(entry, firstEntry - base + entryBytes * (this.#tail & (entries - 1)));
    this.#tail = (this.#tail + 1) >>> 0;
    Atomics.store(this.#words, this.#at(this.#layout.tail), this.#tail | 0);
    wakeAll(this.#addressOf(this.#layout.tail));
  }

  /**
   * Tries until `attempt` returns something, or the time is over: whoever lets go of a slot wakes this.
   * @throws what `attempt` does, the signal's reason
   */
  async waitForSlot<Result>(
    attempt: () => Result | undefined,
    deadline: number,
    signal: AbortSignal | undefined,
  ): Promise<Result | undefined> {
    this.#waiters += 1;
    this.#wanted = (this.#wanted + 1) | 0 || 1;
    this.#want(this.#wanted);
    try {
      for (;;) {
        signal?.throwIfAborted();
        const seen = this.#isClosed ? 0 : Atomics.load(this.#words, this.#at(this.#layout.wanted));
        const result = attempt();
        const leftMs = deadline - performance.now();
        if (result !== undefined || leftMs <= 0) return result;
        await waitAt(this.#addressOf(this.#layout.wanted), seen, Math.min(leftMs, wantMs), signal);
      }
    } finally {
      this.#waiters -= 1;
      if (this.#waiters === 0) this.#want(0);
    }
  }

  /** Whether the record of a slot says that the request of that generation is answered. @throws TensordError `closed` */
  isAnswered(index: number, generation: number): boolean {
    this.check();
    return Atomics.load(this.#longs, this.#recordAt(index) / 8) === BigInt(generation);
  }

  /** Whether somebody has taken it. @throws TensordError `closed` */
  isTaken(index: number, generation: number): boolean {
    this.check();
    return Atomics.load(this.#longs, this.#recordAt(index) / 8 + 1) === BigInt(generation);
  }

  /** Waits until its record changes, or is woken, for at most `ms`, or less. @param isLate it was waited for before */
  async waitForAnswer(
    { index, generation, isLate }: { readonly index: number; readonly generation: number; readonly isLate: boolean },
    ms: number,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    this.check();
    const start = this.#recordAt(index);
    const seen = Atomics.load(this.#words, start / 4);
    if (this.isAnswered(index, generation)) return;
    if (!isLate && isChangedSoon(this.#words, start / 4, seen)) return;
    await waitAt(this.#address + BigInt(start), seen, ms, signal);
  }

  /** A copy of what a slot's record says: others may write there at any time. @throws TensordError `validation-failed`, `closed` */
  readAnswer(index: number): AnswerRecord {
    this.check();
    const start = this.#recordAt(index);
    return parseRecord(Buffer.from(this.#bytes.subarray(start, start + recordBytes)), this.#layout.slotBytes);
  }

  /** Wakes those who receive, who see then that the owner's byte is free: call it after that, and before it is unmapped. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    wakeAll(this.#addressOf(this.#layout.tail));
    const nothing = new ArrayBuffer(0);
    this.#bytes = Buffer.from(nothing);
    this.#words = new Int32Array(nothing);
    this.#longs = new BigUint64Array(nothing);
  }

  check(): void {
    if (!this.#isClosed) return;
    throw new TensordError("closed", `Cannot use ring ${this.reference.region}: it was closed here`, {
      hint: "make another",
    });
  }

  #want(value: number): void {
    if (!this.#isClosed) Atomics.store(this.#words, this.#at(this.#layout.wanted), value);
  }

  #at(byteOffset: number): number {
    return (byteOffset - this.#layout.base) / 4;
  }

  #addressOf(byteOffset: number): bigint {
    return this.#address + BigInt(byteOffset - this.#layout.base);
  }

  #recordAt(index: number): number {
    return this.#layout.firstRecord - this.#layout.base + recordBytes * index;
  }
}
