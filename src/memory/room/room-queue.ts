/** Those who wait for memory, in the order in which they came, and what they lack. */

import type { Books } from "../books.ts";
import { TensordError } from "../error.ts";
import type { Model } from "../region.ts";
import type { Session } from "../sessions/session.ts";

export type OnFull = "fail" | "evict" | "wait";

export interface RoomRequest {
  readonly model: Model;
  readonly payer: Session | null;
  readonly bytes: number;
  readonly onFull: OnFull;
  /** Of `performance.now()`; when waiting ends. */
  readonly deadline: number;
  /** Whether it has waited in line already, and its turn has come. */
  readonly hasTurn: boolean;
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

  get first(): RoomRequest | undefined {
    for (const waiting of this.#waiting) return waiting;
    return undefined;
  }

  /** Its session has ended: it is to find that out now. */
  wakePayer(payer: Session): void {
    for (const waiting of this.#waiting) if (waiting.payer === payer) waiting.wake();
  }

  add(waiting: Waiting): void {
    this.#waiting.add(waiting);
  }

  remove(waiting: Waiting): void {
    this.#waiting.delete(waiting);
  }

  /** Wakes who fits now. Each checks again, and is charged, before the next turn of the event loop. */
  pump(books: Books): void {
    let promised = 0;
    for (const waiting of this.#waiting) {
      const { model, payer, bytes } = waiting;
      const shortage = findShortage(books, model, payer, bytes + promised);
      if (shortage === undefined) {
        promised += bytes;
        waiting.wake();
      } else if (shortage.code === "pool-full") return;
    }
  }
}

/** What keeps `bytes` from being charged now, or undefined. */
export function findShortage(
  books: Books,
  model: Model,
  payer: Session | null,
  bytes: number,
): TensordError | undefined {
  try {
    books.checkQuota(model, bytes, payer);
    return undefined;
  } catch (error) {
    if (isShortage(error)) return error;
    throw error;
  }
}

/** Whether freeing memory may help; against too many regions it does not. */
function isShortage(error: unknown): error is TensordError {
  const codes: string[] = ["session-quota-exceeded", "model-limit-exceeded", "pool-full"];
  return error instanceof TensordError && codes.includes(error.code) && error.facts.requested_bytes !== undefined;
}
