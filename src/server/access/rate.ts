/** How often somebody may ask: a bucket that fills by itself, and from which each request takes one. */

export class Rate {
  readonly #perSecond: number;
  readonly #most: number;
  #left: number;
  #at: number;

  /** @param perSecond as many at once, too, but at least one. @param now in ms, of a clock that only goes forward. */
  constructor(perSecond: number, now: number) {
    this.#perSecond = perSecond;
    this.#most = Math.max(1, perSecond);
    this.#left = this.#most;
    this.#at = now;
  }

  /** @returns 0, or after how many whole seconds to ask again. */
  take(now: number): number {
    this.#left = Math.min(this.#most, this.#left + ((now - this.#at) * this.#perSecond) / 1000);
    this.#at = now;
    if (this.#left < 1) return Math.max(1, Math.ceil((1 - this.#left) / this.#perSecond));
    this.#left -= 1;
    return 0;
  }
}
