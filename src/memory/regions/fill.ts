/**
 * A region that is written by the server and committed sealed: nobody sees it before its bytes are final. It is kept first, since a
 * kept file is what can be opened; without a row the next start frees it.
 */

import type { Checksum } from "../layout/checksum.ts";
import { nextState } from "../state/lifecycle.ts";
import type { Region, RegionChange } from "../state/region.ts";
import type { Store } from "../state/store.ts";
import { refuseCommit, tellEnd, toEnding } from "./end.ts";
import { scheduleExpiry } from "./expire.ts";
import { beginHandOff } from "./hand-off.ts";
import { endClaim, freeAll } from "./seal.ts";

/** Brings the data of a region that is kept and not entered. @returns the checksum of what is there, read back; null if none was taken. */
export type Fill = (region: Region, signal: AbortSignal) => Promise<Checksum | null>;

/** @throws what the fill failed with; nothing of the region is then left once it is undone. */
export async function commitFilled(
  store: Store,
  region: Region,
  fill: Fill,
  signal: AbortSignal,
  actor: string | undefined,
): Promise<void> {
  const { memory, names } = store.storages.of(region);
  names.keep(region.token);
  try {
    store.step("create.kept");
    const checksum = await fill(region, signal);
    // Whoever maps it is promised memory, not a signal.
    await memory.latePages?.complete(region.token, region.byteSize, signal);
    memory.setAccess(region.token, "sealed");
    await memory.seal(region.token);
    signal.throwIfAborted();
    commit(store, region, checksum, actor);
  } catch (error) {
    if (region.state === "creating") refuseCommit(store, region);
    throw error;
  }
}

/** One turn: row, proof, public name, state, and with them the end of the region whose name it takes. */
function commit(store: Store, region: Region, checksum: Checksum | null, actor: string | undefined): void {
  const { pendingName, modelBooks, version, token } = region;
  const holder = pendingName === null ? undefined : modelBooks.names.get(pendingName, version);
  const change: RegionChange = {
    state: toSealed(region),
    checksum,
    sealedAt: store.now(),
    name: pendingName ?? region.name,
    pendingName: null,
    // A builder's session ends what it has not finished; from here on the owner alone decides.
    session: region.owner.kind === "session" ? region.session : null,
  };
  const ending = holder && { ...toEnding(holder, "replaced"), revision: holder.revision + 1 };
  const sealed = { ...region, ...change };
  store.unmarkOthers(region);
  store.journal.insertRegion(sealed, holder && ending ? [{ ...holder, ...ending }] : []);
  store.step("create.journaled");
  publish(store, sealed, holder === undefined);
  if (holder !== undefined && ending !== undefined) {
    store.books.change(holder, ending);
    store.proofs.remove(holder.token);
  }
  store.books.change(region, change);
  endClaim(store, region);
  scheduleExpiry(store, region);
  store.emit({ type: "tensord.region.allocated", region });
  store.emit({ type: "tensord.region.sealed", region });
  if (region.name !== null) store.waiters.wake(region.model, region.name);
  if (holder !== undefined) {
    tellEnd(store, holder, actor);
    void freeAll(store, [holder], actor);
  }
  beginHandOff(store, region, store.storages.of(region).memory.usage(token));
}

/** Once the row has taken another's name it stands, and what is missing is mended when somebody looks at it. */
function publish(store: Store, region: Region, isRefused: boolean): void {
  try {
    store.proofs.put(region);
    store.step("create.proved");
    store.storages.of(region).names.publish(region.token);
    store.step("create.published");
  } catch (error) {
    if (isRefused) throw error;
    store.warn(`Cannot publish reg_${region.token} yet`, error);
  }
}

/** All steps at once, of a region that nobody could map in between. */
function toSealed(region: Region): Region["state"] {
  const open = { ...region, state: nextState(region, "commit") };
  const sealing = { ...open, state: nextState(open, "seal") };
  return nextState(sealing, "seal-committed");
}
