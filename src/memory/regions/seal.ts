/**
 * Sealing makes regions final, one or a group in one turn: modes first, then the questions for writers, then the kernel's own
 * word where it has one, then the checksums, then the commit, which also hands over the names of regions that these replace.
 * Any refusal reopens all.
 */

import { setImmediate } from "node:timers/promises";
import { TensordError } from "../error.ts";
import { describe, idOf } from "../journal/region-record.ts";
import { type Checksum, toChecksum } from "../layout/checksum.ts";
import { limits } from "../limits.ts";
import { nextState } from "../state/lifecycle.ts";
import type { Region, RegionChange } from "../state/region.ts";
import type { Store } from "../state/store.ts";
import { resized } from "../storage/resized.ts";
import type { Access, Usage } from "../storage/storage.ts";
import { releaseClaim } from "./claim.ts";
import { tellEnd, toEnding } from "./end.ts";
import { tryFree } from "./free.ts";
import { beginHandOff } from "./hand-off.ts";

export interface SealOptions {
  /** Take a checksum of the data bytes, which `verify` compares with. */
  readonly checksum: boolean;
  /** Leave the file writable by mode, for stock readers that always open read-write. */
  readonly stockWritable: boolean;
}

/**
 * Seals `regions`, all or none: a failure leaves every one open. Which of them may form a group is `group.ts`'s to say.
 * @throws TensordError `region-sealed`, `region-busy`, `region-draining` before anything is done; `region-has-writers` while
 * anybody maps one for writing, `cancelled` if one is deleted meanwhile, `io-error` if a worker truncated its file.
 */
export async function sealRegions(
  store: Store,
  regions: readonly Region[],
  { checksum, stockWritable }: SealOptions,
  actor?: string,
): Promise<void> {
  const changes = regions.map((region) => [region, { state: nextState(region, "seal") }] as const);
  for (const [region, change] of changes) {
    store.books.change(region, change);
    region.serverLeases += 1;
  }
  store.step("seal.begun");
  try {
    const access: Access = stockWritable ? "sealed-stock-writable" : "sealed";
    const usages: Usage[] = [];
    await inSlices(store, regions, (region) => {
      store.storages.of(region).memory.setAccess(region.token, access);
      store.step("seal.mode-set");
    });
    // After the mode: a writer that locks later sees a sealed file and lets go.
    await inSlices(store, regions, (region) => {
      usages.push(checkUsage(store, region));
      store.step("seal.writers-asked");
    });
    // The commit would do it, but of a group in one turn.
    await inSlices(store, regions, (region) => store.unmarkOthers(region));
    for (const region of regions) await makeFinal(store, region);
    store.step("seal.made-final");
    const checksums: (Checksum | null)[] = [];
    for (const region of regions) checksums.push(checksum ? await hashRegion(store, region, "sealing") : null);
    store.step("seal.hashed");
    const replaced = commit(store, regions, checksums, stockWritable, actor);
    for (const [index, region] of regions.entries()) beginHandOff(store, region, usages[index]);
    await withdrawNames(store, replaced);
    void freeAll(store, replaced, actor);
  } catch (error) {
    for (const region of regions) if (region.state === "sealing") reopen(store, region);
    throw error;
  } finally {
    for (const region of regions) region.serverLeases -= 1;
  }
}

/** Does something to each region, and lets others have their turn in between where they are many. */
async function inSlices(store: Store, regions: readonly Region[], act: (region: Region) => void): Promise<void> {
  for (const [index, region] of regions.entries()) {
    if (index > 0 && index % limits.groupSlice === 0) await setImmediate();
    checkStands(store, region, "sealing");
    act(region);
  }
}

/** The kernel's own word cannot be taken back: whatever refuses the seal after it leaves bytes that nobody changes any more. */
async function makeFinal(store: Store, region: Region): Promise<void> {
  checkStands(store, region, "sealing");
  if (!(await store.storages.of(region).memory.seal(region.token))) throw hasWriters(region);
  checkStands(store, region, "sealing");
}

function hasWriters(region: Region): TensordError {
  return new TensordError("region-has-writers", `Cannot seal ${describe(region)}: a process maps it for writing`, {
    region: idOf(region),
    hint: "Let every writer close its mapping, or seal from the client that wrote it, which lets go of its own first.",
  });
}

function checkUsage(store: Store, region: Region): Usage {
  const usage = store.storages.of(region).memory.usage(region.token);
  if (usage?.written === true) throw hasWriters(region);
  if (usage === undefined) {
    throw new TensordError("io-error", `Cannot seal ${describe(region)}: its file is gone`, {
      region: idOf(region),
      hint: "Somebody removed it from the server's own folder. Create the region again.",
    });
  }
  if (usage.byteSize !== region.byteSize)
    throw resized(`Cannot seal ${describe(region)}`, usage.byteSize, region.byteSize, { region: idOf(region) });
  return usage;
}

/**
 * One turn and one transaction: the rows, and with them those of the regions whose names these take.
 * @returns these: they drain, and have still to be freed.
 */
function commit(
  store: Store,
  regions: readonly Region[],
  checksums: readonly (Checksum | null)[],
  stockWritable: boolean,
  actor: string | undefined,
): readonly Region[] {
  const sealedAt = store.now();
  const holders: Region[] = [];
  const sealed = regions.map((region, index): [Region, RegionChange] => {
    const { pendingName, modelBooks, version } = region;
    const holder = pendingName === null ? undefined : modelBooks.names.get(pendingName, version);
    if (holder !== undefined) holders.push(holder);
    const change = {
      state: nextState(region, "seal-committed"),
      checksum: checksums[index] ?? null,
      stockWritable,
      sealedAt,
      name: pendingName ?? region.name,
      pendingName: null,
      // A builder's session ends what it has not finished; from here on the owner alone decides.
      session: region.owner.kind === "session" ? region.session : null,
    };
    return [region, change];
  });
  if (holders.length === 0) store.change("seal.journaled", ...sealed);
  else {
    const ended = holders.map((holder): [Region, RegionChange] => [holder, toEnding(holder, "replaced")]);
    store.change("seal.replaced-journaled", ...ended, ...sealed);
  }
  for (const region of regions) {
    endClaim(store, region);
    store.emit({ type: "tensord.region.sealed", region });
    collapseLater(store, region);
  }
  for (const { model, name } of regions) if (name !== null) store.waiters.wake(model, name);
  for (const holder of holders) tellEnd(store, holder, actor);
  return holders;
}

/**
 * All of them before the seal is answered: who knows a version by its name looks at that alone. To be freed they wait for each other.
 * What fails here is tried again then.
 */
async function withdrawNames(store: Store, regions: readonly Region[]): Promise<void> {
  for (const [index, region] of regions.entries()) {
    if (index > 0 && index % limits.groupSlice === 0) await setImmediate();
    try {
      store.storages.of(region).names.withdraw(region.token, region.identity);
    } catch (error) {
      store.warn(`Cannot take the name of ${describe(region)} away yet, which was replaced`, error);
    }
  }
}

/** Readers of huge pages pay for far fewer of them. */
function collapseLater(store: Store, region: Region): void {
  const { memory } = store.storages.of(region);
  if (memory.usesReserve !== true) return;
  const path = memory.descriptionPath(region.token);
  store.reserve.sealed.add({ path, byteSize: region.byteSize, isWanted: () => region.state === "sealed" });
}

/** Their memory goes one by one: the row of each says already that it drains. */
export async function freeAll(store: Store, regions: readonly Region[], actor: string | undefined): Promise<void> {
  for (const [index, region] of regions.entries()) {
    if (index > 0 && index % limits.groupSlice === 0) await setImmediate();
    await tryFree(store, region, actor);
  }
}

/** What was claimed is built. The seal stands already, so a claim that cannot be written off now ends with its session. */
export function endClaim(store: Store, region: Region): void {
  const claim = store.claims.of(region);
  if (claim === undefined) return;
  try {
    releaseClaim(store, claim);
  } catch (error) {
    store.warn(`Cannot release the claim under which ${describe(region)} was built`, error);
  }
}

function reopen(store: Store, region: Region): void {
  store.books.change(region, { state: nextState(region, "seal-refused") });
  try {
    store.storages.of(region).memory.setAccess(region.token, "open");
  } catch (error) {
    store.warn(`Cannot give ${describe(region)} its open mode back`, error);
  }
}

/**
 * Recomputes the checksum of a sealed region.
 * @returns what was taken at the seal (null if none was) and what is there now.
 */
export async function verifyRegion(
  store: Store,
  region: Region,
): Promise<{ readonly expected: Checksum | null; readonly actual: Checksum }> {
  nextState(region, "verify");
  region.serverLeases += 1;
  try {
    return { expected: region.checksum, actual: await hashRegion(store, region, "sealed") };
  } finally {
    region.serverLeases -= 1;
  }
}

async function hashRegion(store: Store, region: Region, state: Region["state"]): Promise<Checksum> {
  const check = () => checkStands(store, region, state);
  return toChecksum(
    await store.storages.of(region).bytes.hash(region.token, region.dataOffset, region.byteSize, check),
  );
}

function checkStands(store: Store, region: Region, state: Region["state"]): void {
  if (region.state === state) return store.refuseIfStopping();
  const work = state === "sealing" ? "seal" : "hash";
  throw new TensordError("cancelled", `Cannot ${work} ${describe(region)} to its end: it was deleted meanwhile`, {
    hint: "Create it anew if it is needed.",
  });
}
