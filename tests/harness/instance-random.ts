/** Random choices that a seed repeats: print it, and set TEST_SEED to have the same run again. */

export class Random {
  readonly seed: number;
  #state: number;

  constructor(seed = Number(process.env.TEST_SEED ?? crypto.getRandomValues(new Uint32Array(1))[0])) {
    this.seed = seed >>> 0;
    this.#state = this.seed;
  }

  /** From 0 up to, and not including, 1. Mulberry32. */
  fraction(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  /** An integer from `least` to `most`, both included. */
  integer(least: number, most: number): number {
    return least + Math.floor(this.fraction() * (most - least + 1));
  }

  pick<Item>(items: readonly Item[]): Item {
    const item = items[this.integer(0, items.length - 1)];
    if (item === undefined) throw new Error("nothing to pick from");
    return item;
  }

  isTrue(probability: number): boolean {
    return this.fraction() < probability;
  }
}
