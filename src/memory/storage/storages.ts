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

/** Why there is no storage of a kind here, in words that end a sentence. */
export type Absences = Readonly<Partial<Record<StorageKind, string>>>;

/** What was found out of devices: storages of those that have had none, and why there is none of the others. */
export interface FoundDevices {
  readonly storages: readonly (Storage & Disposable)[];
  /** Why no device can be used at all, if none can. */
  readonly absence: string | undefined;
  /** By UUID. */
  readonly refusals: ReadonlyMap<string, string>;
}

export class Storages {
  readonly #byForm: Map<string, Storage>;
  readonly #withheld: ReadonlySet<StorageKind>;
  /** Found out once for what `#byForm` has: these, and the one of whoever wants nothing in particular, as almost all do. */
  #offered: readonly Storage[] | undefined;
  #usual: Storage | undefined;
  #absences: Absences;
  /** Why it is not known yet which devices there are; undefined once it is. */
  #awaited: string | undefined;
  #refusals: ReadonlyMap<string, string> = new Map();

  /**
   * @param offered the kinds that new regions may be made of, if not all. Regions of the others stay what they are.
   * @param awaited why devices are still to be found; undefined if none are.
   */
  constructor(
    storages: readonly Storage[],
    offered?: readonly OfferedKind[],
    absences: Absences = {},
    awaited?: string | undefined,
  ) {
    this.#absences = absences;
    this.#awaited = awaited;
    this.#byForm = new Map(storages.map((storage) => [storage.form, storage]));
    this.#withheld = new Set(offered && offeredKinds.filter((kind) => !offered.includes(kind)));
  }

  /** Why kinds are absent that this server could have. */
  get absences(): Absences {
    return this.#awaited === undefined ? this.#absences : { ...this.#absences, cuda_vmm: this.#awaited };
  }

  /** From here on it is known which devices there are. */
  settleDevices({ storages, absence, refusals }: FoundDevices): void {
    for (const storage of storages) this.#byForm.set(storage.form, storage);
    this.#offered = undefined;
    this.#usual = undefined;
    if (absence !== undefined) this.#absences = { ...this.#absences, cuda_vmm: absence };
    this.#refusals = refusals;
    this.#awaited = undefined;
  }

  /** @throws TensordError `not-ready` as long as it is not known which devices there are. */
  refuseIfAwaited(what: string): void {
    if (this.#awaited !== undefined) throw notYet(what, this.#awaited);
  }

  get all(): Iterable<Storage> {
    return this.#byForm.values();
  }

  /** Those of which regions could be made now: a device may be withheld. */
  get usable(): readonly Storage[] {
    return [...this.all].filter(({ device, origin }) => device?.withheld == null && origin?.withheld == null);
  }

  /** What new regions may be made of; of files that there are already loads alone make them. */
  get offered(): readonly Storage[] {
    this.#offered ??= [...this.all].filter(({ kind, origin }) => !this.#withheld.has(kind) && origin === undefined);
    return this.#offered;
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
   * The storage of a device, on which something is to be made.
   * @throws TensordError `device-not-found`, `not-ready`, `storage-unavailable` if nothing new is made there.
   */
  device(uuid: string): Storage {
    const storage = [...this.all].find(({ device }) => device?.uuid === uuid);
    if (storage !== undefined) return unlessWithheld(storage);
    this.refuseIfAwaited(`use device ${quote(uuid)}`);
    const refusal = this.#refusals.get(uuid);
    if (refusal !== undefined) throw withheldDevice(uuid, refusal);
    throw deviceNotFound(uuid);
  }

  /**
   * What a region is made in that is asked for so: that, and nothing less.
   * @throws TensordError `storage-unavailable` if this host cannot give it, `validation-failed` if nobody can.
   */
  choose(wish: StorageWish): Storage {
    const { kind, isPrivate, hugePage, device } = wish;
    if (kind !== undefined || isPrivate || hugePage !== undefined || device !== undefined) return this.#choose(wish);
    this.#usual ??= this.#choose(wish);
    return this.#usual;
  }

  #choose({ kind: said, isPrivate, hugePage, device }: StorageWish): Storage {
    const { offered } = this;
    const kind = said ?? offeredKinds.find((each) => offered.some((storage) => storage.kind === each)) ?? "shm";
    const ofKind = offered.filter((storage) => storage.kind === kind);
    if (kind === "cuda_vmm" && hugePage === undefined) return this.#chooseDevice(ofKind, device);
    if (ofKind.length === 0) throw this.#unavailable(kind);
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

  /** On which device: the one that is named, or the only one on which regions are made. */
  #chooseDevice(ofKind: readonly Storage[], device: string | undefined): Storage {
    const usable = ofKind.filter((storage) => storage.device?.withheld == null);
    const [first, ...others] = usable;
    const named = ofKind.find((storage) => storage.device?.uuid === device);
    if (named !== undefined) return unlessWithheld(named);
    this.refuseIfAwaited(device === undefined ? "choose a device" : `use device ${quote(device)}`);
    const refusal = device === undefined ? undefined : this.#refusals.get(device);
    if (device !== undefined && refusal !== undefined) throw withheldDevice(device, refusal);
    if (first === undefined) throw this.#unavailable("cuda_vmm");
    if (device === undefined && others.length === 0) return first;
    const there = usable.map((storage) => storage.device?.uuid).join(", ");
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

  #unavailable(form: string): TensordError {
    const usable = new Set(this.usable);
    const there = [...new Set(this.offered.filter((storage) => usable.has(storage)).map(({ kind }) => kind))];
    const state = this.absences[form as StorageKind] ?? `this server has ${there.join(", ")}`;
    return new TensordError("storage-unavailable", `Cannot use ${form} storage: ${state}`, {
      hint: `Leave "storage" out, or ask for ${there.map((name) => `"${name}"`).join(" or ")}.`,
    });
  }
}

/** @throws TensordError `not-ready`, `storage-unavailable` if nothing new is made there. */
function unlessWithheld(storage: Storage): Storage {
  const { uuid = "", withheld = null } = storage.device ?? {};
  if (withheld === null) return storage;
  throw withheld.isForNow
    ? notYet(`use device ${quote(uuid)}`, withheld.reason)
    : withheldDevice(uuid, withheld.reason);
}

export function deviceNotFound(uuid: string): TensordError {
  return new TensordError("device-not-found", `Cannot find device ${quote(uuid)}: this server can use none called so`, {
    hint: "List the devices, and take a UUID from there. A number is another one in each process.",
  });
}

function notYet(what: string, reason: string): TensordError {
  return new TensordError("not-ready", `Cannot ${what}: ${reason}`, {
    hint: "Ask again in a while, or leave the device out: host memory is there. `tensord doctor` says how the driver is.",
  });
}

function withheldDevice(uuid: string, reason: string): TensordError {
  return new TensordError("storage-unavailable", `Cannot use device ${quote(uuid)}: ${reason}`, {
    hint: "See what `tensord doctor` says of it, or choose another one (`tensord devices` lists them).",
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
