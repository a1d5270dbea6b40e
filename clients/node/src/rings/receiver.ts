/**
 * The other side of a ring's bell: takes what its owner sends, in order, without a socket and without the server
 * (docs/protocol.md, "The bell"). What one message is, `message.ts` says.
 */

import "../dispose.ts";
import { inspect } from "node:util";
import * as kinds from "../check/kinds.ts";
import { checkOptions } from "../check/options.ts";
import * as tables from "../check/tables.ts";
import { checkArgument } from "../check/value.ts";
import { isTensordError, TensordError } from "../errors.ts";
import { Mismatch } from "../memory/attach.ts";
import { Attachment } from "../memory/attachment.ts";
import { isChangedSoon } from "../memory/futex.ts";
import { waitAt } from "../memory/futex-waits.ts";
import { retryWithin } from "../memory/lock.ts";
import { openFileNow } from "../memory/open.ts";
import type { LockOptions, OpenPackedOptions, ReceiverOptions } from "../options.ts";
import type { Asker } from "../regions/asker.ts";
import { placeOf, type TensorReference } from "../regions/reference.ts";
import { standingAt } from "../regions/standing.ts";
import { deadlineAfter, pause, type WaitOptions } from "../waiting.ts";
import { headerBytes, parseHeader, toBase } from "./bell-layout.ts";
import { Message } from "./message.ts";
import { toStale } from "./open-reference.ts";
import { OpenedRing, type Outcome } from "./opened-ring.ts";

/** How long to wait for who writes into a slot that was sent before it is looked at again. */
const busyMs = 1;
const halfOfAll = 2 ** 31;

/** Maps a ring by the reference of its bell. @throws TensordError as `Receiver` says */
export function openReceiver(asker: Asker, reference: TensorReference, options: ReceiverOptions): Receiver {
  const { writable: isWritable = false, onlyNew = false } = options;
  const { byteOffset, byteSize, dtype, shape, generation, region } = reference;
  if (generation !== 0 || dtype !== "U8" || shape.length !== 1 || byteSize < headerBytes + toBase(1)) {
    throw new TensordError("validation-failed", `Cannot receive from ring ${region}: the reference is of no bell`, {
      hint: "send ring.ref(); references of slots are opened with client.open",
    });
  }
  const place = { ...standingAt(asker, placeOf(reference)), byteSize: byteOffset + byteSize };
  try {
    const opened = openFileNow(place, { isWriter: isWritable, isLeased: true });
    const whole = new Attachment(opened, 0, place.byteSize, isWritable ? "write" : "strict");
    try {
      const header = Buffer.from(new Uint8Array(whole.buffer(toBase(byteOffset), headerBytes)));
      const layout = parseHeader(header, byteOffset, byteSize, region);
      const { file } = openFileNow(place, { isWriter: isWritable, isLeased: false });
      asker.session?.report(whole, false);
      return new Receiver(new OpenedRing(reference, layout, whole, file, isWritable), onlyNew);
    } catch (error) {
      whole.close();
      throw error;
    }
  } catch (error) {
    throw error instanceof Mismatch ? toStale(error) : error;
  }
}

/**
 * Receives what a ring's owner sends; `client.receiver` makes it. `receive` one message at a time, or go over them with `for await`, which ends
 * when the owner closes the ring or dies, and closes each message as the next one is asked for. Every receiver of a ring gets every
 * message; a request is taken by one of those that are `writable`. Close it, or declare it with `using`: messages that are open stay so.
 */
export class Receiver {
  readonly #ring: OpenedRing;
  /** Of what was sent before, nobody counts on all. */
  readonly #begunAt: number;
  #seen: number;
  #lost = 0;
  #lostBefore = 0;

  constructor(ring: OpenedRing, onlyNew: boolean) {
    this.#ring = ring;
    this.#begunAt = ring.tail;
    this.#seen = onlyNew ? this.#begunAt : (this.#begunAt - this.#window) >>> 0;
  }

  /**
   * How many messages were gone before this receiver came to them, since the ring had come round: make it with more slots, or close
   * messages sooner. Those of before it was made do not count.
   */
  get lost(): number {
    return this.#lost;
  }

  /** Whether it takes requests. */
  get isWritable(): boolean {
    return this.#ring.isWritable;
  }

  get isClosed(): boolean {
    return this.#ring.isClosed;
  }

  /**
   * The next message, which the caller closes. What was sent before this receiver was made comes too, as far as it is still there.
   * It keeps the process alive while it waits. A wait that ends without a message loses none.
   * @throws TensordError `deadline-exceeded`; `stale-ref` when all was received and the owner has closed the ring, or died; `closed`
   */
  async receive(options: LockOptions = {}): Promise<Message> {
    checkOptions("receive from a ring", tables.lock, options);
    const { timeoutMs = Number.POSITIVE_INFINITY, signal } = options;
    const deadline = deadlineAfter(timeoutMs);
    for (let isLate = false; ; ) {
      signal?.throwIfAborted();
      const found = this.#take();
      if (found instanceof Message) return found;
      const leftMs = deadline - performance.now();
      if (found === "busy") {
        if (leftMs <= 0) throw this.#nothing(timeoutMs);
        await pause(Math.min(busyMs, leftMs), { signal });
        continue;
      }
      // It ended if nobody lives who could send more; looked at when nothing came for a while.
      if ((isLate || leftMs <= 0) && this.#hasEnded()) throw this.#over();
      if (leftMs <= 0) throw this.#nothing(timeoutMs);
      const [words, index] = this.#ring.tailWord;
      if (!isLate && isChangedSoon(words, index, this.#seen | 0)) continue;
      await waitAt(this.#ring.tailAddress, this.#seen | 0, leftMs, signal);
      isLate = true;
    }
  }

  /** The messages as they come, each closed as the next one is asked for; it ends with the ring. @throws as `receive` */
  messages(options: WaitOptions = {}): AsyncGenerator<Message, void, undefined> {
    checkOptions("receive from a ring", tables.wait, options);
    return this.#messages(options);
  }

  [Symbol.asyncIterator](): AsyncGenerator<Message, void, undefined> {
    return this.messages();
  }

  /**
   * Opens a packed reference of this ring, which its owner sent by a way of his own: what `put`, `publish` or `lend` gave with `{ packed: true }`.
   * With `writable` it is written to, as a result slot.
   * @throws TensordError `stale-ref` if the slot holds something else by now; `deadline-exceeded` while somebody writes there;
   *   `validation-failed` for what is no reference of this ring; `closed`
   */
  async open(packed: Uint8Array, options: OpenPackedOptions = {}): Promise<Message> {
    checkArgument("open a packed reference", "it", packed, kinds.packed);
    checkOptions("open a packed reference", tables.openPacked, options);
    const { writable: isWritable = false, ...waiting } = options;
    const ring = this.#ring;
    this.#check();
    if (isWritable && !ring.isWritable) {
      throw new TensordError(
        "validation-failed",
        `Cannot open a packed reference of ring ${ring.region} for writing: its receiver reads`,
        { hint: "make it with client.receiver(reference, { writable: true })" },
      );
    }
    const raw = Buffer.from(packed);
    const type = ring.typeOf(raw);
    const slot = ring.slotOf(raw);
    return retryWithin(waiting, `open a slot of ring ${ring.region}`, () => {
      this.#check();
      const outcome = ring.openSlot(slot, isWritable);
      if (outcome === "busy") return undefined;
      // A request that comes by another way is answered by that as well.
      if (outcome === undefined) return new Message(ring, { ...type, isRequest: false }, slot, { isWritable });
      throw new TensordError(
        "stale-ref",
        `Cannot open a slot of ring ${ring.region}: it holds something else than generation ${slot.generation} by now`,
        { hint: "open references sooner, make the ring with more slots, or lend the slot" },
      );
    });
  }

  /** Lets go of the ring, as far as no message is open. Safe to call twice. */
  close(): void {
    this.#ring.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** As `console.log` shows it. */
  [inspect.custom](): string {
    return `Receiver of ring ${this.#ring.region}, ${this.isClosed ? "closed" : `${this.#lost} lost`}`;
  }

  async *#messages(options: WaitOptions): AsyncGenerator<Message, void, undefined> {
    for (;;) {
      let message: Message;
      try {
        message = await this.receive(options);
      } catch (error) {
        if (isTensordError(error, "stale-ref")) return;
        throw error;
      }
      try {
        yield message;
      } finally {
        message.close();
      }
    }
  }

  /** The most entries that are looked at behind the last one. */
  get #window(): number {
    return this.#ring.layout.entries - 1;
  }

  #check(): void {
    if (!this.#ring.isClosed) return;
    throw new TensordError("closed", `Cannot receive from ring ${this.#ring.region}: the receiver was closed here`, {
      hint: "client.receiver makes another",
    });
  }

  /** In this order: what was sent before the end is seen. */
  #hasEnded(): boolean {
    return !this.#ring.hasOwner() && this.#ring.tail === this.#seen;
  }

  /** The next message, if there is one; `busy` if there will be. */
  #take(): Message | Outcome | undefined {
    this.#check();
    const ring = this.#ring;
    // Who writes into the bell faster than anybody reads shall not keep this thread here.
    for (let turn = 0; turn < 2 * this.#window; turn++) {
      const seen = this.#seen;
      const ahead = (ring.tail - seen) >>> 0;
      if (ahead === 0) return undefined;
      if (ahead > this.#window) {
        this.#pass(ahead - this.#window);
        continue;
      }
      const raw = ring.readEntry(seen);
      // Written over meanwhile, maybe in part.
      if ((ring.tail - seen) >>> 0 > this.#window) continue;
      const found = this.#openEntry(raw);
      if (found === "busy") return found;
      if (found === "lost") {
        this.#pass(1);
        continue;
      }
      this.#seen = (seen + 1) >>> 0;
      if (found === "passed") continue;
      this.#lostBefore = 0;
      return found;
    }
    return "busy";
  }

  /** Goes on behind entries that are lost. */
  #pass(count: number): void {
    this.#seen = (this.#seen + count) >>> 0;
    // Those of before the first look are nobody's loss. Half of all numbers are before any other.
    const known = (this.#seen - this.#begunAt) >>> 0;
    if (known >= halfOfAll) return;
    this.#lost += Math.min(count, known);
    this.#lostBefore += Math.min(count, known);
  }

  #openEntry(raw: Buffer): Message | Outcome {
    const ring = this.#ring;
    try {
      const type = ring.typeOf(raw);
      const slot = ring.slotOf(raw);
      const outcome = type.isRequest ? ring.takeRequest(slot) : ring.openSlot(slot, false);
      return outcome ?? new Message(ring, type, slot, { lost: this.#lostBefore });
    } catch (error) {
      // Anybody who may write to the ring can have written it.
      if (isTensordError(error, "validation-failed")) return "lost";
      throw error;
    }
  }

  #over(): TensordError {
    return new TensordError(
      "stale-ref",
      `Cannot receive from ring ${this.#ring.region}: its owner has closed it, or died, and all that was sent is received`,
      { hint: "the owner makes another ring, and sends its ref()" },
    );
  }

  #nothing(timeoutMs: number): TensordError {
    return new TensordError(
      "deadline-exceeded",
      `Cannot receive from ring ${this.#ring.region}: nothing was sent within ${timeoutMs} ms`,
      { hint: "wait longer; whoever sends waits for nobody to receive" },
    );
  }
}
