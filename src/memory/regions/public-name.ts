/**
 * Public names cannot be lost to a reader: one function looks at one region's name and mends it; a watch on the
 * directory and a slow sweep call it, and so does every GET.
 */

import { type FSWatcher, watch } from "node:fs";
import { describe } from "../journal/region-record.ts";
import { limits } from "../limits.ts";
import { parseFileName } from "../naming.ts";
import { hasEnded } from "../state/lifecycle.ts";
import type { Region } from "../state/region.ts";
import type { Store } from "../state/store.ts";
import type { NameState } from "../storage/storage.ts";
import { loseRegion } from "./end.ts";

/**
 * Looks at the region's public name in one synchronous turn, links it back if it is gone, and says so. It never throws:
 * what cannot be mended now is reported, and looked at again.
 */
export function inspectName(store: Store, region: Region): void {
  if (region.state === "creating" || hasEnded(region.state)) return;
  try {
    act(store, region, store.storages.of(region).names.inspect(region.token, region.identity));
  } catch (error) {
    store.warn(`Cannot look after the name of ${describe(region)}; the next look tries again`, error);
  }
}

function act(store: Store, region: Region, found: NameState): void {
  switch (found) {
    case "relinked":
      lookAgain(store, region);
      store.emit({ type: "tensord.region.relinked", region, cause: "unlinked" });
      break;
    case "replaced":
      lookAgain(store, region);
      store.emit({ type: "tensord.region.relinked", region, cause: "foreign-file" });
      break;
    case "blocked":
      store.warn(`Cannot bring the name of ${describe(region)} back; the next look tries again`, undefined);
      break;
    case "lost":
      loseRegion(store, region);
      break;
    case "intact":
      break;
  }
}

/** The watch may tell once of what happened twice: whoever took the name may have taken it again. */
function lookAgain(store: Store, region: Region): void {
  store.mending.schedule(region, store.now() + limits.nameLookAgainMs);
}

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
