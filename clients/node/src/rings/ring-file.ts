/**
 * A ring's region as its owner uses it: the locks of its slots, their words and bytes (docs/protocol.md, "Ring"). Which
 * slot is whose is `ring.ts`'s.
 */

import { TensordError } from "../errors.ts";
import type { Place } from "../memory/attach.ts";
import type { HeldFile } from "../memory/held-file.ts";
import { setLock, trySetLock } from "../memory/lock.ts";
import { type Region, viewOf } from "../regions/region.ts";
import { openForLock } from "../regions/tensor-lock.ts";
import { slotOffset, toGeneration, wordOffset } from "./ring-layout.ts";

export class RingFile {
  readonly slots: number;
  readonly slotBytes: number;
  readonly place: Place;
  readonly #region: Region;
  /** How often each slot was raised. Counted here: the file can be written by others. */
  readonly #counts: number[];
  /** Holds every lock of this ring, and no mapping, which would outlive it. */
  #file: HeldFile | undefined;

  /** Takes over the region. @throws TensordError, and leaves the region to the caller */
  static async open(region: Region, slots: number, slotBytes: number): Promise<RingFile> {
    const ring = new RingFile(region, slots, slotBytes);
    ring.#file = await openForLock(ring.place, "write");
    return ring;
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
    this.place = viewOf(region).attachment.place;
    this.#region = region;
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
    this.#file.close();
    this.#file = undefined;
    this.#region.close();
  }

  /** Where a slot begins, in bytes from the start of the file. */
  offsetOf(index: number): number {
    return slotOffset(index, this.slots, this.slotBytes);
  }

  /** @returns whether nobody else has it locked */
  tryLock(index: number): boolean {
    return trySetLock(this.#opened(), "write", BigInt(this.offsetOf(index)), BigInt(this.slotBytes));
  }

  unlock(index: number): void {
    setLock(this.#opened(), "none", BigInt(this.offsetOf(index)), BigInt(this.slotBytes));
  }

  /**
   * Makes every reference to the slot stale, and returns the generation of the next one. The slot is locked, so nobody reads
   * the word meanwhile. One aligned store of 8 bytes: a death leaves the old word or the new one.
   */
  raise(index: number): number {
    const count = (this.#counts[index] ?? 0) + 1;
    this.#counts[index] = count;
    const generation = toGeneration(count, index);
    this.#region.tensor("generations").array("U64")[index] = BigInt(generation);
    return generation;
  }

  /** The first bytes of a slot. @throws TensordError `closed` */
  bytes(index: number, byteSize: number): Uint8Array<ArrayBuffer> {
    return this.#region.tensor("slots").window(index * this.slotBytes, byteSize);
  }

  #opened(): number {
    if (this.#file !== undefined) return this.#file.fd;
    throw new TensordError("closed", `Cannot use ring ${this.place.region}: it was closed here`, {
      hint: "make another",
    });
  }
}
