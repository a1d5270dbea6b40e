/**
 * Another file with the same bytes: a model that was downloaded anew, or lies at a second path. It needs no copy where the region that its
 * name means was copied from such bytes. What was found out is kept in mind for as long as that region is there.
 */

import { idOf, type Owner } from "../memory/journal/region-record.ts";
import { attachTo } from "../memory/regions/attach.ts";
import { type CreateRequest, waitFor } from "../memory/regions/create.ts";
import type { Region } from "../memory/state/region.ts";
import { idOfSession } from "../memory/state/session.ts";
import type { Store } from "../memory/state/store.ts";
import { isDeviceForm } from "../memory/storage/storage.ts";
import { compare } from "./compare.ts";
import { fileLabel } from "./file-label.ts";
import type { FileLane } from "./file-lane.ts";
import type { Source } from "./fill.ts";
import { fileLimits } from "./limits.ts";
import { isS3Uri } from "./source/s3-uri.ts";
import { Turns } from "./source/turns.ts";

/** What is asked for, as far as another region can have it. */
interface Asked
  extends Pick<
    CreateRequest,
    "model" | "name" | "storage" | "owner" | "session" | "ifExists" | "labels" | "evictable"
  > {
  /** Undefined: the file's state says it. */
  readonly version: string | undefined;
}

/** What is known of files that were compared with a region. */
interface Compared {
  /** One is compared at a time: those who ask for the same file wait, and need not read it. */
  readonly turns: Turns;
  /** Whether they are equal, by what names the state of the file. */
  readonly verdicts: Map<string, boolean>;
}

const comparedWith = new WeakMap<Region, Compared>();

/**
 * Attaches to the region that stands for `source` because it has its bytes. One that may have them and is still being loaded is waited for.
 * @param onBytes hears of the bytes that were compared since the last time.
 * @returns undefined where there is none. @throws as `compare`, and what an attach is refused with.
 */
export async function attachToEqual(
  store: Store,
  files: FileLane,
  source: Source,
  target: Asked,
  onBytes: (byteSize: number) => void,
  signal: AbortSignal,
): Promise<Region | undefined> {
  for (let waited = 0; ; waited++) {
    const region = candidateFor(store, source, target);
    if (region !== undefined && (await isEqualTo(store, files, source, target, region, onBytes, signal))) {
      // In the turn of the last look, so that it cannot end, nor another version be sealed, in between.
      if (candidateFor(store, source, target) === region) return attach(store, region, target, signal);
    }
    const loading = await findLoading(store, source, target);
    if (loading == null || waited === fileLimits.awaitedLoads) return undefined;
    await waitFor(loading.ended, signal);
  }
}

function attach(store: Store, region: Region, { owner, session }: Asked, signal: AbortSignal): Region {
  store.refuseIfStopping();
  signal.throwIfAborted();
  if (session !== null) store.books.session(idOfSession(session));
  return attachTo(store, region, owner);
}

/** Whether it has the same tensors and bytes; false as well if it is no candidate any more. */
async function isEqualTo(
  store: Store,
  files: FileLane,
  source: Source,
  target: Asked,
  region: Region,
  onBytes: (byteSize: number) => void,
  signal: AbortSignal,
): Promise<boolean> {
  // A file that is taken for bytes has other tensors than as a model.
  if ((await store.layouts.compare(source.tensors, region.tensors)) !== undefined) return false;
  const { turns, verdicts } = comparedOf(region);
  using _turn = await turns.take(signal);
  let isEqual = verdicts.get(source.key);
  if (isEqual === undefined && candidateFor(store, source, target) === region) {
    isEqual = await compare(store, files, source, region, onBytes, signal);
    remember(verdicts, source.key, isEqual);
  }
  return isEqual === true;
}

/**
 * A load that is under way under the same name, of what may be the same bytes. Of an object it may take long: who has a file waits for none.
 * @returns what has an end, however that goes.
 */
async function findLoading(store: Store, source: Source, target: Asked): Promise<Region["creation"] | undefined> {
  if (!mayBeAnother(store, source, target)) return undefined;
  for (const region of [...store.books.model(target.model).names.all(target.name)]) {
    const { creation, byteSize, labels } = region;
    if (creation === null || byteSize !== source.layout.byteSize || !canStandFor(region, target)) continue;
    if (source.bring === undefined && isS3Uri(labels[fileLabel] ?? "")) continue;
    if ((await store.layouts.compare(source.tensors, region.tensors)) === undefined) return creation;
  }
  return undefined;
}

/** Why nothing was copied, in words that end a sentence. */
export function toReason(region: Region): string {
  const file = region.labels[fileLabel] ?? "";
  return `nothing was copied, as ${idOf(region)} has the same bytes${file === "" ? "" : `, which came from ${file}`}`;
}

/**
 * What the name alone means, so that it leads to these bytes for whoever attaches by it; and nothing that would end earlier, or be of another
 * make, than what is asked for. Where somebody says a version, or that it is to be new, he gets that.
 */
function candidateFor(store: Store, source: Source, target: Asked): Region | undefined {
  if (!mayBeAnother(store, source, target)) return undefined;
  const region = store.books.model(target.model).names.find(target.name);
  if (region === undefined || region.state !== "sealed" || region.byteSize !== source.layout.byteSize) return undefined;
  return canStandFor(region, target) ? region : undefined;
}

/** Whether a region may stand for the file that nobody has loaded as such. */
function mayBeAnother(store: Store, { key }: Source, target: Asked): target is Asked & { readonly name: string } {
  const { model, name, version, ifExists } = target;
  if (name === null || version !== undefined || ifExists !== "attach") return false;
  return store.books.model(model).names.get(name, key) === undefined;
}

/** Whether a region that was loaded has all that is asked for but the bytes. */
function canStandFor(region: Region, { storage, owner, evictable, labels }: Asked): boolean {
  const wasCopied = region.labels[fileLabel] !== undefined && region.storageForm !== "file";
  return (
    wasCopied &&
    region.storageForm === storage &&
    !isDeviceForm(storage) &&
    lastsAsLong(region.owner, owner) &&
    (evictable || !region.evictable) &&
    Object.entries(labels).every(([label, value]) => region.labels[label] === value)
  );
}

/** An attach gives it the longer of two times. */
function lastsAsLong(owner: Owner, asked: Owner): boolean {
  if (owner.kind === "persist") return true;
  if (owner.kind === "session" && asked.kind === "session") return owner.session === asked.session;
  return owner.kind === asked.kind;
}

function comparedOf(region: Region): Compared {
  const known = comparedWith.get(region);
  if (known !== undefined) return known;
  const compared = { turns: new Turns(1), verdicts: new Map<string, boolean>() };
  comparedWith.set(region, compared);
  return compared;
}

function remember(verdicts: Map<string, boolean>, key: string, isEqual: boolean): void {
  verdicts.set(key, isEqual);
  const [oldest] = verdicts.keys();
  if (verdicts.size > fileLimits.comparedFiles && oldest !== undefined) verdicts.delete(oldest);
}
