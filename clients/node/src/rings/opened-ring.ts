/**
 * A ring as those who receive have it: all of it mapped, one description for the locks of its slots, and its bell as its owner wrote
 * it. Everything in it others may have written: what is read is copied first, then checked.
 */

import { TensordError } from "../errors.ts";
import type { Attachment } from "../memory/attachment.ts";
import { wakeAll } from "../memory/futex.ts";
import type { HeldFile } from "../memory/held-file.ts";
import { viewAt } from "../memory/libc.ts";
import { isLockedElsewhere, toFlock, tryFlock } from "../memory/lock.ts";
import { maxViewBytes } from "../memory/pages.ts";
import { type TensorReference, toReference } from "../regions/reference.ts";
import { recordBytes, recordStart } from "./answer-record.ts";
import { type BellLayout, entryBytes, ownerByte } from "./bell-layout.ts";
import { keyOf, type Mark, readPlace, requestKind, type Shaped, toMark, unpack } from "./packed.ts";
import { slotOf, slotOffset, toGeneration, wordOffset } from "./ring-layout.ts";

/**
 * Why an entry is no message. `lost`: its slot holds something else by now, or it is no entry at all. `passed`: it is a request that somebody
 * else has, or that this receiver takes none of. `busy`: somebody writes into its slot, so look again.
 */
export type Outcome = "lost" | "passed" | "busy";

/** Of so many dtypes and shapes what an entry says of them is kept. */
const maxTypes = 64;

/** Of rings that nobody closed. What is mapped ends with its last holder. */
const dropped = new FinalizationRegistry<HeldFile>((locks) => locks.close());

export interface EntryType extends Shaped {
  readonly isRequest: boolean;
}

/** The slot of an entry, and its generation. */
export interface SlotPlace {
  readonly index: number;
  readonly generation: number;
}

export class OpenedRing {
  readonly layout: BellLayout;
  readonly isWritable: boolean;
  readonly tailAddress: bigint;
  readonly #reference: TensorReference;
  readonly #whole: Attachment;
  readonly #locks: HeldFile;
  readonly #mark: Mark;
  /** From the bell's base on. */
  #bell: Buffer;
  #words: Int32Array;
  #longs: BigUint64Array;
  #generations: BigUint64Array;
  readonly #types = new Map<string, EntryType>();
  readonly #flocks = new Map<number, { readonly read: Buffer; readonly write: Buffer; readonly none: Buffer }>();
  readonly #slots = new Map<number, ArrayBuffer>();
  /** Those that are open here: locks of one description do not exclude each other. */
  readonly #open = new Set<number>();
  #isClosed = false;

  /** Takes over what is mapped, and the file for its locks. */
  constructor(reference: TensorReference, layout: BellLayout, whole: Attachment, locks: HeldFile, isWritable: boolean) {
    const { base, byteOffset, byteSize, slots } = layout;
    this.#reference = reference;
    this.layout = layout;
    this.isWritable = isWritable;
    this.#whole = whole;
    this.#locks = locks;
    dropped.register(this, locks, this);
    const { dev, ino, region } = reference;
    this.#mark = { dev: BigInt(dev), ino: BigInt(ino), region: toMark(region) };
    const size = Math.floor((byteOffset + byteSize - base) / 8) * 8;
    // Nobody else sees these: they need not keep what is mapped, and go with it.
    const bell = viewAt(whole.addressOf(base, size), size);
    this.#bell = Buffer.from(bell);
    this.#words = new Int32Array(bell);
    this.#longs = new BigUint64Array(bell);
    this.#generations = new BigUint64Array(viewAt(whole.addressOf(wordOffset(0), 8 * slots), 8 * slots));
    this.tailAddress = whole.addressOf(layout.tail, 4);
  }

  get region(): string {
    return this.#reference.region;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  get tail(): number {
    return Atomics.load(this.#words, this.#at(this.layout.tail, 4)) >>> 0;
  }

  /** The words of the bell, and which of them counts what was sent. */
  get tailWord(): readonly [words: Int32Array, index: number] {
    return [this.#words, this.#at(this.layout.tail, 4)];
  }

  /** Lets go of it once nothing is open. Safe to call twice. */
  close(): void {
    this.#isClosed = true;
    this.#endIfOver();
  }

  /** Whether its owner lives, and has it open. */
  hasOwner(): boolean {
    return isLockedElsewhere(this.#locks.fd, ownerByte, 1n);
  }

  /** A copy of the entry of that count. */
  readEntry(count: number): Buffer {
    const { firstEntry, entries, base } = this.layout;
    const start = firstEntry - base + entryBytes * (count & (entries - 1));
    return Buffer.from(this.#bell.subarray(start, start + entryBytes));
  }

  /** What a packed reference says of its tensor. @throws TensordError `validation-failed` if it is not of this ring */
  typeOf(raw: Buffer): EntryType {
    const key = keyOf(raw);
    const known = this.#types.get(key);
    if (known !== undefined) return known;
    const { dev, ino, region, kind, dtype, shape, byteSize } = unpack(raw);
    const mark = this.#mark;
    if (dev !== mark.dev || ino !== mark.ino || region !== mark.region) throw this.#refused("it is of another ring");
    if (byteSize > this.layout.slotBytes) {
      throw this.#refused(`it has ${byteSize} bytes, want at most ${this.layout.slotBytes}, which a slot has`);
    }
    if (this.#types.size >= maxTypes) this.#types.clear();
    const type = { dtype, shape: Object.freeze(shape), byteSize, isRequest: kind === requestKind };
    this.#types.set(key, type);
    return type;
  }

  /** @throws TensordError `validation-failed` if a packed reference is of no slot */
  slotOf(raw: Buffer): SlotPlace {
    const { generation, byteOffset } = readPlace(raw);
    const index = slotOf(generation);
    if (index < this.layout.slots && generation >= toGeneration(1, index) && byteOffset === this.startOf(index)) {
      return { index, generation };
    }
    throw this.#refused(`generation ${generation} at ${byteOffset} is no slot`);
  }

  /** Locks a slot if it is of that generation then. @returns undefined if that is so */
  openSlot({ index, generation }: SlotPlace, isWriter: boolean): Outcome | undefined {
    const isMeant = () => Atomics.load(this.#generations, index) === BigInt(generation);
    // Somebody here still has it, or it came twice.
    if (this.#open.has(index)) return isMeant() ? "busy" : "lost";
    const flocks = this.#flocksOf(index);
    const isLocked = tryFlock(this.#locks.fd, isWriter ? flocks.write : flocks.read);
    // With the lock, or to see whether whoever has it is at work on what comes next.
    if (isMeant()) {
      if (!isLocked) return "busy";
      this.#open.add(index);
      return undefined;
    }
    if (isLocked) tryFlock(this.#locks.fd, flocks.none);
    return "lost";
  }

  /** As `openSlot`, of a request that nobody has taken before: it is this process's then. */
  takeRequest(slot: SlotPlace): Outcome | undefined {
    if (!this.isWritable) return "passed";
    const generation = BigInt(slot.generation);
    const record = this.#recordAt(slot.index) / 8;
    if (Atomics.load(this.#longs, record + 1) === generation) return "passed";
    const outcome = this.openSlot(slot, true);
    if (outcome !== undefined) return outcome;
    if ([record, record + 1].some((word) => Atomics.load(this.#longs, word) === generation)) {
      this.letGo(slot.index);
      return "passed";
    }
    Atomics.store(this.#longs, record + 1, generation);
    return undefined;
  }

  /** Writes the record of a request that this process has taken, lets go of its slot, and wakes its caller. */
  answer({ index, generation }: SlotPlace, record: Buffer): void {
    const start = this.#recordAt(index);
    this.#bell.set(record.subarray(recordStart), start + recordStart);
    Atomics.store(this.#longs, start / 8, BigInt(generation));
    const address = this.#whole.addressOf(this.layout.base + start, 4);
    this.letGo(index);
    wakeAll(address);
  }

  /** Unlocks a slot that is open here. */
  letGo(index: number): void {
    if (!this.#open.delete(index)) return;
    tryFlock(this.#locks.fd, this.#flocksOf(index).none);
    if (Atomics.load(this.#words, this.#at(this.layout.wanted, 4)) !== 0) {
      wakeAll(this.#whole.addressOf(this.layout.wanted, 4));
    }
    this.#endIfOver();
  }

  /** Where a slot begins, in bytes from the start of the file. */
  startOf(index: number): number {
    return slotOffset(index, this.layout.slots, this.layout.slotBytes);
  }

  /** A slot's memory from its first byte on: all of it, or, where that is more than any buffer, `byteSize`. */
  bufferOf(index: number, byteSize: number): ArrayBuffer {
    const { slotBytes } = this.layout;
    if (byteSize > maxViewBytes) {
      throw new TensordError(
        "feature-unavailable",
        `Cannot show ${byteSize} bytes of ring ${this.region} at once: JavaScript views end at ${maxViewBytes}`,
        { hint: "open message.ref() with client.open, and go through it with tensor.window(byteOffset, byteSize)" },
      );
    }
    if (slotBytes > maxViewBytes) return this.#whole.buffer(this.startOf(index), byteSize);
    const known = this.#slots.get(index);
    if (known !== undefined) return known;
    const buffer = this.#whole.buffer(this.startOf(index), slotBytes);
    this.#slots.set(index, buffer);
    return buffer;
  }

  /** What `client.open` takes for a slot that is open here. */
  refOf({ index, generation }: SlotPlace, type: Shaped): TensorReference {
    return toReference(this.#whole.place, { ...type, byteOffset: this.startOf(index) }, generation);
  }

  #endIfOver(): void {
    if (!this.#isClosed || this.#open.size > 0) return;
    this.#slots.clear();
    const nothing = new ArrayBuffer(0);
    this.#bell = Buffer.from(nothing);
    this.#words = new Int32Array(nothing);
    this.#longs = new BigUint64Array(nothing);
    this.#generations = this.#longs;
    dropped.unregister(this);
    this.#locks.close();
    this.#whole.close();
  }

  #at(byteOffset: number, wordBytes: number): number {
    return (byteOffset - this.layout.base) / wordBytes;
  }

  #recordAt(index: number): number {
    return this.layout.firstRecord - this.layout.base + recordBytes * index;
  }

  #flocksOf(index: number) {
    const known = this.#flocks.get(index);
    if (known !== undefined) return known;
    const [start, length] = [BigInt(this.startOf(index)), BigInt(this.layout.slotBytes)];
    const flocks = {
      read: toFlock("read", start, length),
      write: toFlock("write", start, length),
      none: toFlock("none", start, length),
    };
    this.#flocks.set(index, flocks);
    return flocks;
  }

  #refused(why: string): TensordError {
    return new TensordError("validation-failed", `Cannot open a packed reference of ring ${this.region}: ${why}`);
  }
}
