/**
 * How a region ends, for whatever reason: in one turn its row says so, its name is free and its session no longer pays for
 * it, and it is told. Its memory goes after that (`free.ts`); when an owner lets go is `expire.ts`'s.
 */

import { TensordError } from "../error.ts";
import { isOutOfMemory } from "../journal/journal-failure.ts";
import { describe, type EndReason } from "../journal/region-record.ts";
import { describeEnd, describeLoss } from "../state/ended-regions.ts";
import { hasEnded, nextState } from "../state/lifecycle.ts";
import type { Region, RegionChange } from "../state/region.ts";
import { describeSession } from "../state/session.ts";
import type { Store } from "../state/store.ts";
import { forgetRegion, isLeased, removeList, tryFree, writeOwedRow } from "./free.ts";

/**
 * Ends `region` in this turn; `freeRegion` is then owed. A creation is cancelled, and undoes itself.
 * @param actor who asked, for events and logs.
 * @returns whether it ended now: false if it drains already.
 * @throws TensordError if the row cannot be written; the region then stands as it was.
 */
export function endRegion(store: Store, region: Region, reason: EndReason, actor?: string): boolean {
  if (region.creation !== null) {
    giveNameUp(store, region, { reason: "aborted" });
    cancelCreation(region, "it was deleted meanwhile");
    return true;
  }
  const ending = toEnding(region, reason);
  if (ending.state === region.state) {
    writeOwedRow(store, region);
    return false;
  }
  changeRow(store, region, ending);
  tellEnd(store, region, actor);
  return true;
}

/** How a region looks once it drains. */
export function toEnding(region: Region, reason: EndReason): RegionChange {
  const state = nextState(region, reason === "replaced" ? "replaced" : "delete");
  return { state, reason, name: null, pendingName: null, formerName: region.name };
}

/**
 * On a file system so full that the row cannot be written, a region that nobody maps goes without it: its own pages are
 * enough for the row's end. A crash in between leaves the row of a region that nobody was told is deleted.
 */
function changeRow(store: Store, region: Region, ending: RegionChange): void {
  try {
    store.change("delete.journaled", [region, ending]);
  } catch (error) {
    if (!isOutOfMemory(error) || isLeased(store, region)) throw error;
    store.books.change(region, { ...ending, revision: region.revision + 1 });
    region.isRowOwed = true;
  }
}

/** Tells that a region has ended, in the turn in which its row and the books say so. */
export function tellEnd(store: Store, region: Region, actor: string | undefined): void {
  remember(store, region);
  store.expiring.cancel(region);
  wakeWaiters(store, region, region.formerName);
  store.emit({ type: "tensord.region.draining", region, actor });
}

/** Neither the name nor the keeper's link is there: nobody can map it again, and nothing can bring it back. */
export function loseRegion(store: Store, region: Region): void {
  const cause = "removed";
  forgetRegion(store, region, "lost");
  store.books.ended.remember(region, describeLoss(cause), store.now());
  store.expiring.cancel(region);
  wakeWaiters(store, region, region.formerName);
  store.emit({ type: "tensord.region.lost", region, cause });
}

/** For those who still ask for it. A sealed one that outlives its session knows of that the id alone. */
function remember(store: Store, region: Region): void {
  const { session: token, owner, reason } = region;
  if (reason === null) return;
  const session = token === null ? undefined : store.books.findSession(token);
  const id = owner.kind === "session" ? owner.session : undefined;
  const who = session === undefined ? id : describeSession(session);
  store.books.ended.remember(region, describeEnd(reason, who), store.now());
}

/** Stops a creation, which undoes itself and fails with this. */
export function cancelCreation(region: Region, why: string): void {
  const detail = `Cannot finish the creation of ${describe(region)}: ${why}`;
  const hint = "Nothing of it is left; create it again if it is needed.";
  region.creation?.cancel.abort(new TensordError("cancelled", detail, { hint }));
}

/** The bytes are kept, but the row or the name cannot be written: this is no longer an abort but a delete. */
export function refuseCommit(store: Store, region: Region): void {
  giveNameUp(store, region, { state: nextState(region, "commit-refused"), reason: "aborted" });
}

/** Undoes a creation that failed. Of what was kept goes name, keeper, row, and again if one of it fails. */
export async function undoCreation(store: Store, region: Region): Promise<void> {
  if (hasEnded(region.state)) return void (await tryFree(store, region));
  giveNameUp(store, region, { reason: "aborted" });
  try {
    await store.storages.of(region).memory.discard(region.token, region.byteSize);
  } catch (error) {
    store.warn(`Cannot remove what was left of ${describe(region)}; the next start will`, error);
  }
  await removeList(store, region);
  store.books.change(region, { state: nextState(region, "abort") });
}

function giveNameUp(store: Store, region: Region, change: RegionChange): void {
  const formerName = region.name ?? region.formerName;
  store.books.change(region, { ...change, name: null, pendingName: null, formerName });
  wakeWaiters(store, region, region.formerName);
}

/** Who waits for a name to be built has to know that nobody builds it any more. */
function wakeWaiters(store: Store, region: Region, name: string | null): void {
  if (name !== null) store.waiters.wake(region.model, name);
}
