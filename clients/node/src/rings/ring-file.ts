/**
 * A ring's region as its owner uses it: the locks of its slots, their words and bytes (docs/protocol.md, "Ring"). Which
 * slot is whose is `ring.ts`'s.
 */

import { TensordError } from "../errors.ts";
import type { Place } from "../memory/attach.ts";
import type { HeldFile } from "../memory/held-file.ts";
import { viewAt } from "../memory/libc.ts";
import { isLockedElsewhere, setLock, toFlock, tryFlock, trySetLock } from "../memory/lock.ts";
import { maxViewBytes } from "../memory/pages.ts";
import { type Region, viewOf } from "../regions/region.ts";
import { openForLock } from "../regions/tensor-lock.ts";
import { Bell } from "./bell.ts";
import { ownerByte } from "./bell-layout.ts";
import { type Mark, type Packed, pack, toMark, writePlace } from "./packed.ts";
import { slotOffset, toGeneration, wordOffset } from "./ring-layout.ts";

const maxTypes = 64;

export class RingFile {
  readonly slots: number;
  readonly slotBytes: number;
  readonly place: Place;
  readonly #mark: Mark;
  readonly #packed = new Map<string, Buffer>();
  readonly #region: Region;
  /** How often each slot was raised. Counted here: the file can be written by others. */
  readonly #counts: number[];
  /** As the kernel wants them: a slot's lock, and its end. */
  readonly #flocks: { readonly write: Buffer; readonly none: Buffer }[] = [];
  readonly bell: Bell;
  /** Of each slot its memory, while it can be shown at once. */
  readonly #windows = new Map<number, Uint8Array<ArrayBuffer>>();
  #words: BigUint64Array;
  /** Holds every lock of this ring, and no mapping, which would outlive it. */
  #file: HeldFile | undefined;

  /** Takes over the region. @throws TensordError, and leaves the region to the caller */
  static async open(region: Region, slots: number, slotBytes: number): Promise<RingFile> {
    const ring = new RingFile(region, slots, slotBytes);
    const file = await openForLock(ring.place, "write");
    // Those who receive see by it that the owner lives.
    if (trySetLock(file.fd, "write", ownerByte, 1n)) {
      ring.#file = file;
      return ring;
    }
    file.close();
    throw new TensordError(
      "region-busy",
      `Cannot make a ring: somebody else has locked the byte by which its owner lives in ${ring.place.region}`,
      { hint: "make another one" },
    );
  }

  private constructor(region: Region, slots: number, slotBytes: number) {
    const words = region.tensor("generations").byteOffset;
    const first = region.tensor("slots").byteOffset;
    // Readers compute these places: a ring that lies elsewhere is one that nobody can read.
    if (words !== wordOffset(0) || first !== slotOffset(0, slots, slotBytes)) {
      throw new TensordError("server-fault", `Cannot make a ring: its region has words at ${words}, slots at ${first}`);
    }
    this.slots = slots;
    this.slotBytes = slotBytes;
    const { attachment } = viewOf(region);
    this.place = attachment.place;
    const { dev, ino, region: id } = this.place;
    this.#mark = { dev: BigInt(dev), ino: BigInt(ino), region: toMark(id) };
    this.#region = region;
    // Nobody else sees it: it need not keep what is mapped, and goes with it.
    this.#words = new BigUint64Array(viewAt(attachment.addressOf(wordOffset(0), 8 * slots), 8 * slots));
    const bell = region.tensor("bell");
    const { name, byteOffset, byteSize, shape } = bell;
    this.bell = new Bell(
      attachment,
      { name, dtype: "U8", shape, byteOffset, byteSize, aliasOf: null, logical: null },
      slots,
      slotBytes,
    );
    this.#counts = new Array<number>(slots).fill(0);
  }

  get isClosed(): boolean {
    return this.#file === undefined;
  }

  /** Unlocks every slot and unmaps the region. Safe to call twice. */
  close(): void {
    if (this.#file === undefined) return;
    // All of it: a copy of the descriptor in a child process must not keep a lock.
    setLock(this.#file.fd, "none", BigInt(this.offsetOf(0)), BigInt(this.slots * this.slotBytes));
    setLock(this.#file.fd, "none", ownerByte, 1n);
    this.#file.close();
    this.#file = undefined;
    this.bell.close();
    this.#words = new BigUint64Array(0);
    this.#windows.clear();
    this.#region.close();
  }

  /**
   * A packed reference of a slot. Of so many dtypes and shapes what all of theirs have in common is kept.
   * @throws TensordError `validation-failed` for too many dimensions
   */
  pack(said: Omit<Packed, keyof Mark>): Buffer {
    const key = `${said.kind} ${said.dtype} ${said.shape}`;
    let known = this.#packed.get(key);
    if (known === undefined) {
      known = pack({ ...said, ...this.#mark });
      if (this.#packed.size >= maxTypes) this.#packed.clear();
      this.#packed.set(key, known);
    }
    const raw = Buffer.from(known);
    writePlace(raw, said.generation, said.byteOffset);
    return raw;
  }

  /** Where a slot begins, in bytes from the start of the file. */
  offsetOf(index: number): number {
    return slotOffset(index, this.slots, this.slotBytes);
  }

  /** @returns whether nobody else has it locked */
  tryLock(index: number): boolean {
    return tryFlock(this.#opened(), this.#flocksOf(index).write);
  }

  unlock(index: number): void {
    tryFlock(this.#opened(), this.#flocksOf(index).none);
  }

  /**
   * Makes every reference to the slot stale, and returns the generation of the next one. The slot is locked, so nobody reads
   * the word meanwhile. One aligned store of 8 bytes: a death leaves the old word or the new one.
   */
  raise(index: number): number {
    const count = (this.#counts[index] ?? 0) + 1;
    this.#counts[index] = count;
    const generation = toGeneration(count, index);
    Atomics.store(this.#words, index, BigInt(generation));
    return generation;
  }

  /** The first bytes of a slot. @throws TensordError `closed` */
  bytes(index: number, byteSize: number): Uint8Array<ArrayBuffer> {
    const { slotBytes } = this;
    this.#opened();
    if (slotBytes > maxViewBytes) return this.#region.tensor("slots").window(index * slotBytes, byteSize);
    let window = this.#windows.get(index);
    if (window === undefined) {
      window = this.#region.tensor("slots").window(index * slotBytes, slotBytes);
      this.#windows.set(index, window);
    }
    return window.subarray(0, byteSize);
  }

  /** A slot's memory from its first byte on, as far as an answer in it reaches. @throws TensordError `closed` */
  bufferOf(index: number, { offset, byteSize }: { readonly offset: number; readonly byteSize: number }): ArrayBuffer {
    return this.bytes(index, offset + byteSize).buffer;
  }

  /** Whether anybody else has a slot that this process has unlocked. @throws TensordError `closed` */
  isOpenElsewhere(index: number): boolean {
    return isLockedElsewhere(this.#opened(), BigInt(this.offsetOf(index)), BigInt(this.slotBytes));
  }

  #flocksOf(index: number) {
    const [start, length] = [BigInt(this.offsetOf(index)), BigInt(this.slotBytes)];
    this.#flocks[index] ??= { write: toFlock("write", start, length), none: toFlock("none", start, length) };
    return this.#flocks[index];
  }

  #opened(): number {
    if (this.#file !== undefined) return this.#file.fd;
    throw new TensordError("closed", `Cannot use ring ${this.place.region}: it was closed here`, {
      hint: "make another",
    });
  }
}
