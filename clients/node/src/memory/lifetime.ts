/**
 * The life of something that several objects hold: it is over when each of them let go of it, or was collected. What is to
 * happen then, such as an `munmap`, is said by whoever makes it.
 */

interface Holding {
  readonly lifetime: Lifetime;
  readonly collected: (() => void) | undefined;
}

const holdings = new FinalizationRegistry<Holding>(({ lifetime, collected }) => {
  collected?.();
  lifetime.letGo();
});

export class Lifetime {
  #holders = 0;
  readonly #endings: (() => void)[] = [];

  /** Calls `ended` at the end. What that refers to must not refer to a holder, or the end never comes. */
  whenOver(ended: () => void): void {
    this.#endings.push(ended);
  }

  /**
   * Goes on for as long as `holder` lives; `collected` is called when the collector found it.
   * @returns what lets go before that; once more does nothing
   */
  hold(holder: object, collected?: () => void): () => void {
    const token = {};
    this.#holders += 1;
    holdings.register(holder, { lifetime: this, collected }, token);
    return () => {
      if (holdings.unregister(token)) this.letGo();
    };
  }

  /** One holder less. For the registry of this file. */
  letGo(): void {
    this.#holders -= 1;
    if (this.#holders > 0) return;
    for (const ended of this.#endings) ended();
  }
}
