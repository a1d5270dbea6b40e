/** The storages that this host has, by form. */

import { TensordError } from "../error.ts";
import { quote } from "../naming.ts";
import type { HugePage, Storage, StorageForm, StorageKind } from "./storage.ts";

/** The kinds that an operator may allow, as a region is made of them where nobody says: the first that there is. */
export const offeredKinds = ["shm", "memfd", "heap"] as const satisfies readonly StorageKind[];
export type OfferedKind = (typeof offeredKinds)[number];

/** What a request wants a region to be made of. */
export interface StorageWish {
  /** Undefined: whatever is the default here. */
  readonly kind: StorageKind | undefined;
  readonly isPrivate: boolean;
  readonly hugePage: HugePage | undefined;
  /** The UUID of a device; undefined leaves the choice to the server. */
  readonly device?: string | undefined;
}

/** Why there is no storage of a kind here, in a sentence. */
export type Absences = Readonly<Partial<Record<StorageKind, string>>>;

export class Storages {
  readonly #byForm: ReadonlyMap<string, Storage>;

  readonly #withheld: ReadonlySet<StorageKind>;
  /** Why kinds are absent that this server could have. */
  readonly absences: Absences;

  /** @param offered the kinds that new regions may be made of, if not all. Regions of the others stay what they are. */
  constructor(storages: readonly Storage[], offered?: readonly OfferedKind[], absences: Absences = {}) {
    this.absences = absences;
    this.#byForm = new Map(storages.map((storage) => [storage.form, storage]));
    this.#withheld = new Set(offered && offeredKinds.filter((kind) => !offered.includes(kind)));
  }

  get all(): Iterable<Storage> {
    return this.#byForm.values();
  }

  /** What new regions may be made of. */
  get offered(): readonly Storage[] {
    return [...this.all].filter(({ kind }) => !this.#withheld.has(kind));
  }

  /** The kinds of which there is a storage that new regions may not be made of. */
  get withheld(): ReadonlySet<string> {
    return this.#withheld;
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
    throw this.#unavailable(form);
  }

  /**
   * What a region is made in that is asked for so: that, and nothing less.
   * @throws TensordError `storage-unavailable` if this host cannot give it, `validation-failed` if nobody can.
   */
  choose({ kind: said, isPrivate, hugePage, device }: StorageWish): Storage {
    const { offered } = this;
    const kind = said ?? offeredKinds.find((each) => offered.some((storage) => storage.kind === each)) ?? "shm";
    const ofKind = offered.filter((storage) => storage.kind === kind);
    if (ofKind.length === 0) throw this.#unavailable(kind);
    if (hugePage === undefined && ofKind.some((storage) => storage.device !== null)) return onDevice(ofKind, device);
    if (device !== undefined) {
      throw new TensordError("validation-failed", `Cannot put the region on a device: ${kind} storage is the host's`, {
        hint: 'Leave "device_uuid" out, or ask for "cuda_vmm" storage.',
      });
    }
    const fitting = ofKind.filter((storage) => storage.hugePage === (hugePage ?? null));
    // What is private anyway is all the more so if it is asked for.
    const storage = fitting.find((one) => one.isPrivate === isPrivate) ?? fitting.find((one) => one.isPrivate);
    if (storage !== undefined && (storage.isPrivate || !isPrivate)) return storage;
    if (hugePage !== undefined) throw noHugePage(kind, hugePage, offered);
    throw new TensordError("validation-failed", `Cannot make the region private: ${kind} storage has no such regions`, {
      hint: 'Leave "private" out, or ask for "shm" or "memfd" storage.',
    });
  }

  #unavailable(form: string): TensordError {
    const there = [...new Set(this.offered.map(({ kind }) => kind))];
    const state = this.absences[form as StorageKind] ?? `this server has ${there.join(", ")}`;
    return new TensordError("storage-unavailable", `Cannot use ${form} storage: ${state}`, {
      hint: `Leave "storage" out, or ask for ${there.map((name) => `"${name}"`).join(" or ")}.`,
    });
  }
}

/** On which device: the one that is named, or the only one. */
function onDevice(ofKind: readonly Storage[], device: string | undefined): Storage {
  const [first, ...others] = ofKind;
  const there = ofKind.map((storage) => storage.device?.uuid).join(", ");
  if (device === undefined && first !== undefined && others.length === 0) return first;
  const named = ofKind.find((storage) => storage.device?.uuid === device);
  if (named !== undefined) return named;
  const hint = `Say "device_uuid" with one of ${there}.`;
  if (device === undefined) {
    throw new TensordError("validation-failed", "Cannot choose a device: there are several, want one by its UUID", {
      hint,
    });
  }
  throw new TensordError("storage-unavailable", `Cannot use device ${quote(device)}: this server has ${there}`, {
    hint,
  });
}

function noHugePage(kind: StorageKind, hugePage: HugePage, offered: readonly Storage[]): TensordError {
  const having = offered.filter((storage) => storage.hugePage !== null);
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
