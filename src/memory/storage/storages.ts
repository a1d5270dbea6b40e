/** The storages that this host has, by form. */

import { TensordError } from "../error.ts";
import type { HugePage, Storage, StorageForm, StorageKind } from "./storage.ts";

/** What a request wants a region to be made of. */
export interface StorageWish {
  readonly kind: StorageKind;
  readonly isPrivate: boolean;
  readonly hugePage: HugePage | undefined;
}

export class Storages {
  readonly #byForm: ReadonlyMap<string, Storage>;

  constructor(storages: readonly Storage[]) {
    this.#byForm = new Map(storages.map((storage) => [storage.form, storage]));
  }

  get all(): Iterable<Storage> {
    return this.#byForm.values();
  }

  /** The storage that made `region`. */
  of(region: { readonly storageForm: StorageForm }): Storage {
    return this.get(region.storageForm);
  }

  has(form: string): boolean {
    return this.#byForm.has(form);
  }

  /** @throws TensordError `storage-unavailable` if this host has no such storage. */
  get(form: string): Storage {
    const storage = this.#byForm.get(form);
    if (storage !== undefined) return storage;
    const there = [...new Set([...this.all].map(({ kind }) => kind))];
    throw new TensordError("storage-unavailable", `Cannot use ${form} storage: this server has ${there.join(", ")}`, {
      hint: `Leave "storage" out, or ask for ${there.map((name) => `"${name}"`).join(" or ")}.`,
    });
  }

  /**
   * What a region is made in that is asked for so: that, and nothing less.
   * @throws TensordError `storage-unavailable` if this host cannot give it, `validation-failed` if nobody can.
   */
  choose({ kind, isPrivate, hugePage }: StorageWish): Storage {
    const ofKind = [...this.all].filter((storage) => storage.kind === kind);
    if (ofKind.length === 0) return this.get(kind);
    const fitting = ofKind.filter((storage) => storage.hugePage === (hugePage ?? null));
    // What is private anyway is all the more so if it is asked for.
    const storage = fitting.find((one) => one.isPrivate === isPrivate) ?? fitting.find((one) => one.isPrivate);
    if (storage !== undefined && (storage.isPrivate || !isPrivate)) return storage;
    if (hugePage !== undefined) throw noHugePage(kind, hugePage, [...this.all]);
    throw new TensordError("validation-failed", `Cannot make the region private: ${kind} storage has no such regions`, {
      hint: 'Leave "private" out, or ask for "shm" or "memfd" storage.',
    });
  }
}

function noHugePage(kind: StorageKind, hugePage: HugePage, all: readonly Storage[]): TensordError {
  const having = all.filter((storage) => storage.hugePage !== null);
  const kinds = new Set(having.map((storage) => storage.kind));
  if (having.length > 0 && !kinds.has(kind)) {
    const which = [...kinds].join(" or ");
    return new TensordError(
      "validation-failed",
      `Cannot take pages of ${hugePage}: the storage is ${kind}, want ${which}`,
      {
        hint: `Ask for "${which}" storage with it, or leave "huge_pages" out.`,
      },
    );
  }
  const sizes = having.map((storage) => storage.hugePage).join(", ");
  return new TensordError(
    "storage-unavailable",
    `Cannot take pages of ${hugePage}: this host has ${sizes === "" ? "no huge pages" : `${sizes}, and none of those`}`,
    { hint: 'Ask for a size that the host has (its capabilities list them), or leave "huge_pages" out.' },
  );
}
