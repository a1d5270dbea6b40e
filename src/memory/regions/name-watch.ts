/** Who looks after public names: a watch for those that get lost, and a slow sweep for what the watch has missed. */

import { limits } from "../limits.ts";
import type { Store } from "../state/store.ts";
import { LostNames } from "../storage/lost-names.ts";
import { inspectName } from "./public-name.ts";

/** Watches the directory of public names until disposed; sweeps when the watch has missed something, and slowly anyway. */
export class NameWatch implements Disposable {
  readonly #store: Store;
  readonly #lost: LostNames | undefined;
  #timer: Timer | undefined;
  #sweeping = false;
  #sweptAtMs = Number.NEGATIVE_INFINITY;
  #soon: Timer | undefined;

  constructor(store: Store, directory: string) {
    this.#store = store;
    this.#lost = this.#watch(directory);
    this.#sweepEvery(this.#lost === undefined ? limits.sweepUnwatchedMs : limits.sweepIntervalMs);
  }

  /** Resolves when its Worker is up, or where the host has none to give. @throws Error if the Worker dies before that. */
  get started(): Promise<void> | undefined {
    return this.#lost?.started;
  }

  /** A host may have no inotify instance left (fs.inotify.max_user_instances); names are then found lost by sweeps. */
  #watch(directory: string): LostNames | undefined {
    try {
      return LostNames.open({
        instance: this.#store.instance,
        directory,
        known: this.#store.books.tokens,
        onLost: (tokens) => this.#inspect(tokens),
        onOverflow: () => this.#sweepSoon(),
        onEnd: (error) => {
          this.#warn(error);
          this.#sweepEvery(limits.sweepUnwatchedMs);
        },
      });
    } catch (error) {
      this.#warn(error);
      return undefined;
    }
  }

  #warn(error: unknown): void {
    this.#store.warn("Cannot watch public names; sweeps and every GET still look at them", error);
  }

  #inspect(tokens: readonly string[]): void {
    for (const token of tokens) {
      const region = this.#store.books.regionByToken(token);
      if (region !== undefined) inspectName(this.#store, region);
    }
  }

  #sweepEvery(intervalMs: number): void {
    clearInterval(this.#timer);
    this.#timer = setInterval(() => void this.#sweep(), intervalMs);
    this.#timer.unref();
  }

  /** Whoever makes the kernel's queue overflow all the time gets no more sweeps for it than a host without a watch has. */
  #sweepSoon(): void {
    if (this.#soon !== undefined) return;
    const waitMs = Math.max(0, this.#sweptAtMs + limits.sweepUnwatchedMs - performance.now());
    this.#soon = setTimeout(() => {
      this.#soon = undefined;
      void this.#sweep();
    }, waitMs);
    this.#soon.unref();
  }

  async #sweep(): Promise<void> {
    if (this.#sweeping) return;
    this.#sweeping = true;
    this.#sweptAtMs = performance.now();
    try {
      for (let key = 0, more = true; more; await Bun.sleep(0)) {
        more = false;
        const slice = this.#store.books.regions.after(key).take(limits.sweepSlice);
        for (const region of [...slice]) {
          key = region.key;
          more = true;
          inspectName(this.#store, region);
        }
      }
    } finally {
      this.#sweeping = false;
    }
  }

  /** Resolves once nothing of the watch is left behind its disposal. */
  get ended(): Promise<void> | undefined {
    return this.#lost?.ended;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    clearTimeout(this.#soon);
    this.#lost?.[Symbol.dispose]();
  }
}
