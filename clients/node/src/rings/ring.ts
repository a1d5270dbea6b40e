/**
 * The owner's side of a ring (docs/protocol.md, "Ring"): one region cut into slots, which it fills and hands round by
 * reference, without the server. The readers' side is `open-slot.ts`.
 */

import type { LockOptions } from "../options.ts";
import "../dispose.ts";
import { inspect } from "node:util";
import { checkOptions } from "../check/options.ts";
import * as tables from "../check/tables.ts";
import { TensordError } from "../errors.ts";
import type { PutOptions, RingOptions } from "../options.ts";
import type { Asker } from "../regions/asker.ts";
import { isHeap, noRing } from "../regions/heap.ts";
import { makeRegion } from "../regions/make-region.ts";
import type { TensorReference } from "../regions/reference.ts";
import type { TensorSource } from "../regions/sources.ts";
import { deadlineAfter } from "../waiting.ts";
import { toBellLayout } from "./bell-layout.ts";
import type { Call } from "./call.ts";
import { RingFile } from "./ring-file.ts";
import { maxSlots } from "./ring-layout.ts";
import { Slot } from "./slot.ts";

const defaultSlots = 16;
const defaultSlotBytes = 8 * 1024 * 1024;
/** So that every slot is aligned for every dtype. */
const slotAlignment = 8;

/** Makes the region of a ring, and opens it. @throws TensordError `validation-failed`, what `client.create` throws */
export async function makeRing(asker: Asker, options: RingOptions): Promise<Ring> {
  const { slots = defaultSlots, slotBytes: leastBytes = defaultSlotBytes, name = null, ...rest } = options;
  const isSize = (value: number, most: number) => Number.isSafeInteger(value) && value >= 1 && value <= most;
  if (!isSize(slots, maxSlots) || !isSize(leastBytes, Number.MAX_SAFE_INTEGER - slotAlignment)) {
    throw new TensordError(
      "validation-failed",
      `Cannot make a ring of ${slots} slots of ${leastBytes} bytes: want 1 to ${maxSlots} slots of 1 byte or more`,
    );
  }
  const slotBytes = Math.ceil(leastBytes / slotAlignment) * slotAlignment;
  const tensors = {
    generations: { dtype: "U64", shape: [slots] },
    // In this order: those of one size lie in the file as they are asked for.
    slots: { dtype: "U8", shape: [slots, slotBytes] },
    bell: { dtype: "U8", shape: [toBellLayout(slots, slotBytes).byteSize] },
  } as const;
  if (options.storage === "heap") throw noRing();
  const region = await makeRegion(asker, name, tensors, rest);
  try {
    // The default of a server that has nothing else.
    if (isHeap(region.descriptor)) throw noRing();
    return new Ring(await RingFile.open(region, slots, slotBytes));
  } catch (error) {
    region.close();
    await asker.api.deleteRegion(region.id).catch(() => undefined);
    throw error;
  }
}

/**
 * A ring of slots that this process owns. Each slot holds one tensor at a time. `send` one, and whoever has `client.receiver` of `ref()`
 * receives it; `call` is a request that one of them answers; or `put` it, and send the reference by a way of your own. Close it, or declare it with `using`: that
 * lets go of the memory here, while the region ends with its owner, or by `client.delete(ring)`.
 */
export class Ring {
  readonly #file: RingFile;
  /** Slots that are being filled, or lent. */
  readonly #taken = new Set<number>();
  #last = -1;

  constructor(file: RingFile) {
    this.#file = file;
  }

  /** The id of its region. */
  get id(): string {
    return this.#file.place.region;
  }

  get slots(): number {
    return this.#file.slots;
  }

  /** The largest tensor of a slot. */
  get slotBytes(): number {
    return this.#file.slotBytes;
  }

  get isClosed(): boolean {
    return this.#file.isClosed;
  }

  /**
   * Takes the next slot that nobody holds, and makes every earlier reference to it stale. Waits while all are held.
   * @throws TensordError `deadline-exceeded`, `closed`
   */
  async acquire(options: LockOptions = {}): Promise<Slot> {
    checkOptions("take a slot", tables.lock, options);
    const { timeoutMs = Number.POSITIVE_INFINITY, signal } = options;
    const deadline = deadlineAfter(timeoutMs);
    signal?.throwIfAborted();
    const free = this.#tryAcquire();
    if (free !== undefined) return free;
    const slot = await this.#file.bell.waitForSlot(() => this.#tryAcquire(), deadline, signal);
    if (slot !== undefined) return slot;
    throw new TensordError(
      "deadline-exceeded",
      `Cannot take a slot of ring ${this.id}: all ${this.slots} are in use after ${timeoutMs} ms, ${this.#taken.size} of them by ` +
        "this process, the others by those who have them open",
      { hint: "close slots, calls, messages and opened tensors sooner, or make the ring with more slots" },
    );
  }

  /** What `client.receiver` takes, in any process of this machine: send it once. @throws TensordError `closed` */
  ref(): TensorReference {
    this.#file.bell.check();
    return this.#file.bell.reference;
  }

  /**
   * Copies a tensor into the next free slot, and tells those who receive. Nobody need be there: it is not kept for who comes when the
   * ring has come round.
   * @throws TensordError as `put`, and `validation-failed` for more than 8 dimensions
   */
  async send(source: TensorSource, options: LockOptions = {}): Promise<void> {
    using slot = await this.#fill(source, options);
    slot.send();
  }

  /**
   * Copies a tensor into the next free slot and sends it as a request, which one of those who receive answers:
   * `using call = await ring.call(data)`, `await call.result()`. The slot is the call's until that is closed. The result is written into the
   * same slot, which must have the bytes for it. The options are for the wait for a slot.
   * @throws TensordError as `send`
   */
  async call(source: TensorSource, options: LockOptions = {}): Promise<Call> {
    using slot = await this.#fill(source, options);
    return slot.call();
  }

  /**
   * Copies a tensor into the next free slot. @returns the reference to send; with `packed` its 128 bytes, which `receiver.open` takes
   * @throws TensordError `deadline-exceeded`, `validation-failed` if it is larger than a slot, `closed`
   */
  put(source: TensorSource, options: PutOptions & { readonly packed: true }): Promise<Uint8Array<ArrayBuffer>>;
  put(source: TensorSource, options?: PutOptions & { readonly packed?: false | undefined }): Promise<TensorReference>;
  async put(source: TensorSource, options: PutOptions = {}): Promise<TensorReference | Uint8Array<ArrayBuffer>> {
    checkOptions("put a tensor into a ring", tables.put, options);
    const { packed = false, ...waiting } = options;
    using slot = await this.#fill(source, waiting);
    return packed ? slot.publish({ packed }) : slot.publish();
  }

  /** Lets go of the ring and of every slot. Safe to call twice. */
  close(): void {
    this.#file.close();
  }

  /** As `console.log` shows it. */
  [inspect.custom](): string {
    const state = this.isClosed ? ", closed" : "";
    return `Ring of ${this.slots} slots of ${this.slotBytes} bytes in ${this.id}${state}`;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  async #fill(source: TensorSource, options: LockOptions): Promise<Slot> {
    const slot = await this.acquire(options);
    try {
      await slot.write(source);
      return slot;
    } catch (error) {
      slot.close();
      throw error;
    }
  }

  #tryAcquire(): Slot | undefined {
    const { slots } = this.#file;
    for (let step = 1; step <= slots; step++) {
      const index = (this.#last + step) % slots;
      if (this.#taken.has(index) || !this.#file.tryLock(index)) continue;
      this.#taken.add(index);
      this.#last = index;
      return new Slot(this.#file, index, () => this.#taken.delete(index));
    }
    return undefined;
  }
}
