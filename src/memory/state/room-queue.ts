/** Those who wait for memory, in the order in which they came. */

import type { Books } from "./books.ts";
import { type Charge, findShortage } from "./quota.ts";
import type { Session } from "./session.ts";

export type OnFull = "fail" | "evict" | "wait";

export interface RoomRequest extends Charge {
  readonly onFull: OnFull;
  /** Of `performance.now()`; when waiting ends. */
  readonly deadline: number;
  /** Whether it has waited in line already, and its turn has come. */
  readonly hasTurn: boolean;
  /** Who asks, for the events of what goes to make room. */
  readonly actor: string | undefined;
}

interface Waiting extends RoomRequest {
  readonly wake: () => void;
}

/** Those who wait for memory. Told whenever some may have become free. */
export class RoomQueue {
  readonly #waiting = new Set<Waiting>();

  get size(): number {
    return this.#waiting.size;
  }

  /** Whether anybody waits for memory of that pool. */
  waitsFor(poolName: string): boolean {
    return this.firstOf(poolName) !== undefined;
  }

  firstOf(poolName: string): RoomRequest | undefined {
    for (const waiting of this.#waiting) if (waiting.poolName === poolName) return waiting;
    return undefined;
  }

  /** Its session has ended: it is to find that out now. */
  wakeSession(session: Session): void {
    for (const waiting of this.#waiting) if (waiting.session === session) waiting.wake();
  }

  add(waiting: Waiting): void {
    this.#waiting.add(waiting);
  }

  remove(waiting: Waiting): void {
    this.#waiting.delete(waiting);
  }

  /** Wakes who fits now. Each checks again, and is charged, before the next turn of the event loop. */
  pump(books: Books): void {
    const promised = new Map<string, number>();
    const promisedOwn = new Map<object, number>();
    const full = new Set<string>();
    for (const waiting of this.#waiting) {
      const { poolName, bytes, own } = waiting;
      if (full.has(poolName)) continue;
      const others = promised.get(poolName) ?? 0;
      const ownOthers = own === undefined ? 0 : (promisedOwn.get(own.ownPool) ?? 0);
      const shortage = findShortage(books, {
        ...waiting,
        bytes: bytes + others,
        own: own && { ...own, freeBytes: own.freeBytes - ownOthers },
      });
      if (shortage === undefined) {
        promised.set(poolName, others + bytes);
        if (own !== undefined) promisedOwn.set(own.ownPool, ownOthers + own.requestedBytes);
        waiting.wake();
      } else if (shortage.code === "pool-full" && shortage.own === undefined) full.add(poolName);
    }
  }
}
