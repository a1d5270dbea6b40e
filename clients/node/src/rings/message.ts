/**
 * One message of a ring, from its receipt to its end: a tensor to read, or a request to answer in the slot in which it lies
 * (docs/protocol.md, "The bell").
 */

import "../dispose.ts";
import { inspect } from "node:util";
import * as kinds from "../check/kinds.ts";
import { checkArgument, quote } from "../check/value.ts";
import { type ArrayDtype, type ArrayTypes, byteSizeOf, type Dtype, type TensorArray } from "../dtype.ts";
import { TensordError } from "../errors.ts";
import type { TensorReference } from "../regions/reference.ts";
import { type TensorSource, toSource } from "../regions/sources.ts";
import { type AnswerRecord, done, failed, resultAlignment, toRecord } from "./answer-record.ts";
import { lineBytes } from "./bell-layout.ts";
import type { EntryType, OpenedRing, SlotPlace } from "./opened-ring.ts";
import type { Shaped } from "./packed.ts";
import { showArray, showBytes } from "./slot-view.ts";

const maxReasonBytes = 4096;

/** What nobody closed is let go of when the collector finds it, and the arrays that it gave. */
const dropped = new FinalizationRegistry<{
  readonly ring: OpenedRing;
  readonly slot: SlotPlace;
  readonly tell: boolean;
}>(({ ring, slot, tell }) => (tell ? giveUp(ring, slot) : ring.letGo(slot.index)));

/**
 * A tensor that came by a ring; `receiver.receive` makes it. Close it, or declare it with `using`: until then its slot is locked, and the
 * ring goes round it. Arrays that are kept beyond that show what comes into the slot next: copy what you keep with `slice()`.
 * A request is answered before it is closed; one that is not is told to its caller as failed.
 *
 * Of a receiver that is not `writable` the arrays are read-only to the processor: a stray write ends the process.
 */
export class Message {
  readonly #ring: OpenedRing;
  readonly #type: EntryType;
  readonly #slot: SlotPlace;
  readonly #isWritable: boolean;
  #isClosed = false;
  /** How many messages were gone between the one before and this. */
  readonly lost: number;

  /** Takes over a slot that is open. */
  constructor(ring: OpenedRing, type: EntryType, slot: SlotPlace, { lost = 0, isWritable = type.isRequest } = {}) {
    this.#ring = ring;
    this.#type = type;
    this.#slot = slot;
    this.#isWritable = isWritable;
    this.lost = lost;
    dropped.register(this, { ring, slot, tell: this.isRequest }, this);
  }

  get dtype(): Dtype {
    return this.#type.dtype;
  }

  /** In elements, outermost first. */
  get shape(): readonly number[] {
    return this.#type.shape;
  }

  get byteSize(): number {
    return this.#type.byteSize;
  }

  get generation(): number {
    return this.#slot.generation;
  }

  /** Whether its sender waits for an answer, which is this process's to give. */
  get isRequest(): boolean {
    return this.#type.isRequest && this.#isWritable;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /**
   * The tensor, in place; it may be written to if it is a request. Naming the dtype gives the type, and is checked.
   * @throws TensordError `closed`; `validation-failed` for another dtype; `feature-unavailable` for what no typed array shows
   */
  array(): TensorArray;
  array<Name extends ArrayDtype>(dtype: Name): ArrayTypes[Name];
  array(dtype?: ArrayDtype): TensorArray {
    this.#check();
    const buffer = this.#ring.bufferOf(this.#slot.index, this.byteSize);
    return this.#held(showArray(buffer, 0, this.#type, dtype), this.#type);
  }

  /** The raw bytes, whatever the dtype. @throws TensordError `closed` */
  bytes(): Uint8Array<ArrayBuffer> {
    this.#check();
    return this.#held(showBytes(this.#ring.bufferOf(this.#slot.index, this.byteSize), 0, this.byteSize));
  }

  /** What `client.open` takes: it is good for as long as the slot's owner lets it be. @throws TensordError `closed` */
  ref(): TensorReference {
    this.#check();
    return this.#ring.refOf(this.#slot, this.#type);
  }

  /**
   * Room for the result of a request, in its slot and behind it, which `answer` then sends without a copy. Nothing is cleared.
   * @throws TensordError `validation-failed` if it is no request, or there is not so much room; `closed`
   */
  room<Name extends ArrayDtype>(dtype: Name, shape: readonly number[]): ArrayTypes[Name] {
    this.#checkRequest("make room for the result of");
    checkArgument("make room for a result", "the dtype", dtype, kinds.dtype);
    checkArgument("make room for a result", "the shape", shape, kinds.shape);
    const offset = Math.ceil(this.byteSize / lineBytes) * lineBytes;
    const type = { dtype, shape, byteSize: byteSizeOf(dtype, shape) };
    this.#checkRoom(type.dtype, shape, type.byteSize, offset);
    const buffer = this.#ring.bufferOf(this.#slot.index, offset + type.byteSize);
    return this.#held(showArray(buffer, offset, type, dtype), type) as ArrayTypes[Name];
  }

  /**
   * Sends the result of a request, and closes the message. What `room` or `array` gave stays where it is, with its dtype and shape; all else is
   * copied into the slot, over the request.
   * @throws TensordError `validation-failed` if it is no request, or does not fit: then it may be answered with something else; `closed`
   */
  answer(source: TensorSource): void {
    this.#checkRequest("answer");
    const ours = shown.get(source);
    const { dtype, shape, bytes } = toSource(ours === undefined ? source : { ...ours, data: source as TensorArray });
    const byteSize = byteSizeOf(dtype, shape);
    const inPlace = bytes === undefined ? undefined : this.#offsetOf(bytes);
    this.#checkRoom(dtype, shape, byteSize, inPlace ?? 0);
    const record = toRecord({ kind: done, offset: inPlace ?? 0, dtype, shape, byteSize });
    if (inPlace === undefined) {
      const target = showBytes(this.#ring.bufferOf(this.#slot.index, byteSize), 0, byteSize);
      // Without content it is zeros, as everywhere.
      if (bytes === undefined) target.fill(0);
      else target.set(bytes);
    }
    this.#finish(record);
  }

  /** Tells the caller of a request that there is no result, and why, and closes the message. @throws as `answer` */
  fail(reason: string): void {
    this.#checkRequest("fail");
    checkArgument("fail a request", "the reason", reason, kinds.text);
    this.#isClosed = true;
    dropped.unregister(this);
    giveUp(this.#ring, this.#slot, reason);
  }

  /** Lets go of the slot. Safe to call twice. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    dropped.unregister(this);
    if (this.isRequest) giveUp(this.#ring, this.#slot);
    else this.#ring.letGo(this.#slot.index);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** As `console.log` shows it. */
  [inspect.custom](): string {
    const what = this.isRequest ? "request" : "tensor";
    return `Message ${what} ${this.dtype} [${this.shape.join(", ")}] of ${this.#ring.region}${this.#isClosed ? ", closed" : ""}`;
  }

  /** As long as it lives, this does; and it is answered with as what it is. */
  #held<Shown extends object>(array: Shown, as?: Pick<Shaped, "dtype" | "shape">): Shown {
    if (as !== undefined) shown.set(array, { dtype: as.dtype, shape: as.shape });
    return Object.defineProperty(array, holder, { value: this });
  }

  #finish(record: Buffer): void {
    this.#isClosed = true;
    dropped.unregister(this);
    this.#ring.answer(this.#slot, record);
  }

  /** Where in the slot bytes lie as a result would; undefined if they are elsewhere. */
  #offsetOf({ buffer, byteOffset }: Uint8Array): number | undefined {
    const isHere = buffer === this.#ring.bufferOf(this.#slot.index, this.byteSize);
    return isHere && byteOffset % resultAlignment === 0 ? byteOffset : undefined;
  }

  #check(): void {
    if (!this.#isClosed) return;
    throw new TensordError("closed", `Cannot use a message of ring ${this.#ring.region}: it was closed here`, {
      hint: "copy what you keep before that",
    });
  }

  #checkRequest(action: string): void {
    this.#check();
    if (this.isRequest) return;
    throw new TensordError(
      "validation-failed",
      `Cannot ${action} a message of ring ${this.#ring.region}: nobody waits for an answer`,
      { hint: "its sender uses ring.call for that" },
    );
  }

  #checkRoom(dtype: string, shape: readonly number[], byteSize: number, offset: number): void {
    const room = Math.max(this.#ring.layout.slotBytes - offset, 0);
    if (byteSize <= room) return;
    throw new TensordError(
      "validation-failed",
      `Cannot answer with ${dtype} ${quote(shape)} in a slot of ring ${this.#ring.region}: it has ${byteSize} bytes, want ` +
        `at most ${room}`,
      { hint: "make the ring with larger slotBytes" },
    );
  }
}

const holder = Symbol("message");
/** What arrays show that messages gave: they say neither their shape nor, as of BF16, their dtype. */
const shown = new WeakMap<object, Pick<Shaped, "dtype" | "shape">>();

/** Tells the caller of a request that there is no result. */
function giveUp(ring: OpenedRing, slot: SlotPlace, reason = "its worker closed it without an answer"): void {
  const room = Math.min(maxReasonBytes, ring.layout.slotBytes);
  const target = showBytes(ring.bufferOf(slot.index, room), 0, room);
  // Cut where it is still text.
  const { written: byteSize } = new TextEncoder().encodeInto(reason, target);
  const record: AnswerRecord = { kind: failed, offset: 0, dtype: "U8", shape: [byteSize], byteSize };
  ring.answer(slot, toRecord(record));
}
