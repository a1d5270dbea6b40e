/** Requests that wait until a name of a model is sealed. One wake-up touches only those who wait for that name. */

import { TensordError } from "../error.ts";
import { limits } from "../limits.ts";

export class NameWaiters {
  readonly #waiting = new Map<string, Set<() => void>>();
  #count = 0;

  /**
   * Resolves at the next `wake` of the name, after `waitMs`, or when `signal` aborts (rejecting with its reason).
   * @throws TensordError `too-many-requests` if too many wait already.
   */
  async wait(model: string, name: string, waitMs: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#count >= limits.waiters) {
      throw new TensordError("too-many-requests", `Cannot wait: ${this.#count} requests wait already`, {
        hint: "Ask again in a while, or without waiting.",
      });
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const key = `${model}/${name}`;
    const set = this.#waiting.get(key) ?? new Set();
    this.#waiting.set(key, set);
    set.add(resolve);
    this.#count += 1;
    const timer = setTimeout(resolve, waitMs);
    const abort = () => reject(signal.reason);
    signal.addEventListener("abort", abort);
    try {
      await promise;
    } finally {
      signal.removeEventListener("abort", abort);
      clearTimeout(timer);
      this.#count -= 1;
      set.delete(resolve);
      if (set.size === 0 && this.#waiting.get(key) === set) this.#waiting.delete(key);
    }
  }

  wake(model: string, name: string): void {
    const key = `${model}/${name}`;
    const set = this.#waiting.get(key);
    this.#waiting.delete(key);
    for (const resolve of set ?? []) resolve();
  }
}
