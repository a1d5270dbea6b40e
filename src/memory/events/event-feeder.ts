/**
 * Feeds every subscriber from its own cursor, in slices so that the event loop stays free. One that does not take more
 * is left alone until it drains; it delays nobody and costs no memory. Knows no transport.
 */

import { TensordError } from "../error.ts";
import { limits } from "../limits.ts";
import type { EventCursor, EventGap } from "./event-cursor.ts";
import type { EventLog, KeptEvent } from "./event-log.ts";

export interface Subscriber {
  readonly cursor: EventCursor;
  /** Sends one frame. @returns whether it takes more now; if not, `EventFeeder.resume` is called when it does. */
  send(found: KeptEvent | EventGap): boolean;
  /** Ends one that has taken nothing for `limits.subscriberStallMs`. */
  endStalled(): void;
}

export class EventFeeder implements Disposable {
  /** Each with the time since which it takes nothing, or null. */
  readonly #subscribers = new Map<Subscriber, number | null>();
  readonly #stopListening: () => void;
  readonly #stallTimer: Timer;
  #pass: Iterator<[Subscriber, number | null]> | undefined;
  #isAgainNeeded = false;

  constructor(log: EventLog) {
    this.#stopListening = log.listen(() => this.#wake());
    this.#stallTimer = setInterval(() => this.#endStalled(), limits.subscriberStallMs / 10);
    this.#stallTimer.unref();
  }

  get size(): number {
    return this.#subscribers.size;
  }

  /** @throws TensordError `too-many-requests` if there are too many. */
  refuseIfFull(): void {
    if (this.size < limits.subscribers) return;
    throw new TensordError("too-many-requests", `Cannot subscribe: ${this.size} follow the events already`, {
      hint: "Follow once in a process and hand on what is heard, or read the events page by page.",
    });
  }

  add(subscriber: Subscriber): void {
    this.#subscribers.set(subscriber, null);
    this.#wake();
  }

  remove(subscriber: Subscriber): void {
    this.#subscribers.delete(subscriber);
  }

  /** The subscriber has drained. */
  resume(subscriber: Subscriber): void {
    if (this.#subscribers.get(subscriber) == null) return;
    this.#subscribers.set(subscriber, null);
    this.#wake();
  }

  #wake(): void {
    if (this.#pass !== undefined) {
      this.#isAgainNeeded = true;
      return;
    }
    this.#pass = this.#subscribers.entries();
    setImmediate(() => this.#turn());
  }

  /** One turn: some frames to some subscribers. A pass over all of them takes as many turns as it needs. */
  #turn(): void {
    for (let budget: number = limits.eventSlice; budget > 0; ) {
      const { value, done } = this.#pass?.next() ?? { value: undefined, done: true };
      if (done === true || value === undefined) return this.#endPass();
      const [subscriber, stalledSince] = value;
      if (stalledSince === null) budget -= 1 + this.#feed(subscriber);
    }
    setImmediate(() => this.#turn());
  }

  #endPass(): void {
    this.#pass = undefined;
    if (!this.#isAgainNeeded) return;
    this.#isAgainNeeded = false;
    this.#wake();
  }

  /** @returns how many frames were sent. */
  #feed(subscriber: Subscriber): number {
    const { cursor } = subscriber;
    for (let sent = 0; sent < limits.eventVisit; sent++) {
      const found = cursor.next();
      if (found === undefined) {
        if (cursor.isBehind) this.#isAgainNeeded = true;
        return sent;
      }
      if (!subscriber.send(found)) {
        if (this.#subscribers.has(subscriber)) this.#subscribers.set(subscriber, performance.now());
        return sent + 1;
      }
    }
    this.#isAgainNeeded = true;
    return limits.eventVisit;
  }

  #endStalled(): void {
    const now = performance.now();
    for (const [subscriber, since] of this.#subscribers) {
      if (since === null || now - since < limits.subscriberStallMs) continue;
      this.remove(subscriber);
      subscriber.endStalled();
    }
  }

  [Symbol.dispose](): void {
    this.#stopListening();
    clearInterval(this.#stallTimer);
    this.#subscribers.clear();
  }
}
