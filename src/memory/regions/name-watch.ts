/** Who looks after public names: a watch on their directory, and a slow sweep for what the watch has lost. */

import { type FSWatcher, watch } from "node:fs";
import { limits } from "../limits.ts";
import { parseFileName } from "../naming.ts";
import type { Store } from "../state/store.ts";
import { inspectName } from "./public-name.ts";

/** Watches the directory of public names until disposed; sweeps when the watch has lost something, and slowly anyway. */
export class NameWatch implements Disposable {
  readonly #store: Store;
  readonly #watcher: FSWatcher | undefined;
  readonly #timer: Timer;
  #sweeping = false;

  constructor(store: Store, directory: string) {
    this.#store = store;
    this.#watcher = this.#watch(directory);
    const intervalMs = this.#watcher === undefined ? limits.sweepUnwatchedMs : limits.sweepIntervalMs;
    this.#timer = setInterval(() => void this.#sweep(), intervalMs);
    this.#timer.unref();
  }

  /** A host may have no inotify instance left (fs.inotify.max_user_instances); names are then found lost by sweeps. */
  #watch(directory: string): FSWatcher | undefined {
    const onError = (error: unknown) =>
      this.#store.warn("Cannot watch public names; sweeps and every GET still look at them", error);
    try {
      const watcher = watch(directory, { persistent: false }, (_, fileName) => this.#onChange(fileName));
      return watcher.on("error", onError);
    } catch (error) {
      onError(error);
      return undefined;
    }
  }

  #onChange(fileName: string | null): void {
    // A null name is the only sign that the kernel's queue overflowed.
    if (fileName === null) return void this.#sweep();
    const token = parseFileName(this.#store.instance, fileName);
    const region = token === undefined ? undefined : this.#store.books.regionByToken(token);
    if (region !== undefined) inspectName(this.#store, region);
  }

  async #sweep(): Promise<void> {
    if (this.#sweeping) return;
    this.#sweeping = true;
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

  [Symbol.dispose](): void {
    this.#watcher?.close();
    clearInterval(this.#timer);
  }
}
