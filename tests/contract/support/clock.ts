/** A clock that a test moves on, so that nobody waits for ten seconds to pass. Timers keep real time. */

import { spyOn } from "bun:test";

/** While it lives `Date.now` runs on as ever, ahead by what the test added. */
export class Clock implements Disposable {
  #aheadMs = 0;
  readonly #spy;

  constructor() {
    const now = Date.now;
    this.#spy = spyOn(Date, "now").mockImplementation(() => now() + this.#aheadMs);
  }

  advance(ms: number): void {
    this.#aheadMs += ms;
  }

  [Symbol.dispose](): void {
    this.#spy.mockRestore();
  }
}
