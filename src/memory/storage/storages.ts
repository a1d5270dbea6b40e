/** The storages that this host has, by kind. */

import { TensordError } from "../error.ts";
import type { Storage, StorageKind } from "./storage.ts";

export class Storages {
  readonly #byKind: ReadonlyMap<string, Storage>;

  constructor(storages: readonly Storage[]) {
    this.#byKind = new Map(storages.map((storage) => [storage.kind, storage]));
  }

  get all(): Iterable<Storage> {
    return this.#byKind.values();
  }

  /** The storage that made `region`. */
  of(region: { readonly storageKind: StorageKind }): Storage {
    return this.get(region.storageKind);
  }

  has(kind: string): boolean {
    return this.#byKind.has(kind);
  }

  /** @throws TensordError `storage-unavailable` if this host has no such storage. */
  get(kind: string): Storage {
    const storage = this.#byKind.get(kind);
    if (storage !== undefined) return storage;
    const there = [...this.#byKind.keys()];
    throw new TensordError("storage-unavailable", `Cannot use ${kind} storage: this server has ${there.join(", ")}`, {
      hint: `Leave "storage" out, or ask for ${there.map((name) => `"${name}"`).join(" or ")}.`,
    });
  }
}
