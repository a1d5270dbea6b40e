/**
 * What a server does while hardly anybody asks: it lets go of the pages of its own program that only its start, or a busy time, had
 * use for. The kernel then counts them to nobody, and takes them when it needs memory; until then they are a fault away.
 */

import { limits } from "../memory/limits.ts";

export interface RestParts {
  /** How many requests there were since the start. */
  readonly asked: () => number;
  /** Lets go of the pages. */
  readonly drop: () => Promise<unknown>;
  readonly onWarning: (message: string, error: unknown) => void;
}

export class Rest implements Disposable {
  readonly #parts: RestParts;
  #timer: Timer | undefined;
  #askedBefore = Number.NEGATIVE_INFINITY;
  #calmLooks = 0;
  #isOver = false;

  constructor(parts: RestParts) {
    this.#parts = parts;
  }

  start(): void {
    this.#timer = setInterval(() => void this.look(), limits.restLookMs);
    this.#timer.unref();
  }

  /** To be called once in `limits.restLookMs`. Never rejects. */
  async look(): Promise<void> {
    const asked = this.#parts.asked();
    this.#calmLooks = asked - this.#askedBefore <= limits.restRequests ? this.#calmLooks + 1 : 0;
    this.#askedBefore = asked;
    // What comes back by itself is less each time, and so is the gain.
    if (this.#isOver || !isPowerOfTwo(this.#calmLooks)) return;
    try {
      await this.#parts.drop();
    } catch (error) {
      this.#isOver = true;
      this[Symbol.dispose]();
      this.#parts.onWarning("The program's pages stay in memory while nobody asks", error);
    }
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}

function isPowerOfTwo(count: number): boolean {
  return count > 0 && Number.isInteger(Math.log2(count));
}
