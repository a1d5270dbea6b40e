/** Deletion by request, TTL or replacement: the name goes at once, the bytes when the last lease is gone. */

import { isOutOfMemory } from "../journal/journal-failure.ts";
import type { EndReason } from "../journal/region-record.ts";
import { nextState } from "../state/lifecycle.ts";
import type { Region } from "../state/region.ts";
import type { Store } from "../state/store.ts";
import { cancelled } from "./cancelled.ts";
import { drainRegion, isLeased, writeOwedRow } from "./drain.ts";

export interface Deletion {
  readonly state: "deleted" | "draining";
  readonly freedBytes: number;
}

/**
 * Deletes `region`; of one that drains already it says so and changes nothing.
 * @param actor who asked, for events and logs.
 * @throws TensordError if the row cannot be written; the region then stands as it was.
 */
export async function deleteRegion(store: Store, region: Region, reason: EndReason, actor?: string): Promise<Deletion> {
  if (region.creation !== null) {
    store.books.releaseName(region);
    region.creation.cancel.abort(cancelled(region, "it was deleted meanwhile"));
    await region.creation.ended;
    // Its commit may have been first; then it is deleted like any other.
    if (region.state !== "deleted") return deleteRegion(store, region, reason, actor);
    return { state: "deleted", freedBytes: region.chargedBytes };
  }
  if (region.state !== "draining") {
    takeOut(store, region, reason, actor);
    return await freeTaken(store, region, actor);
  }
  writeOwedRow(store, region);
  return { state: "draining", freedBytes: 0 };
}

/** Takes a region out of the books in this turn: it has no name any more, and `freeTaken` is owed. */
export function takeOut(store: Store, region: Region, reason: EndReason, actor?: string): void {
  beginRequestedDrain(store, region, reason);
  store.step("delete.journaled");
  store.emit({ type: "tensord.region.draining", region, actor });
}

/** Frees what was taken out, if nobody maps it. */
export async function freeTaken(store: Store, region: Region, actor?: string): Promise<Deletion> {
  if (await drainRegion(store, region, actor)) return { state: "deleted", freedBytes: region.chargedBytes };
  // What is not written would be undone by a crash, so it is not promised.
  writeOwedRow(store, region);
  return { state: "draining", freedBytes: 0 };
}

/**
 * On a file system so full that the row cannot be written, a region that nobody maps goes without it: its own pages make
 * room for the row's end. A crash in between leaves the row of a region that nobody was told is deleted.
 */
function beginRequestedDrain(store: Store, region: Region, reason: EndReason): void {
  const row = toDraining(region, reason);
  try {
    beginDrain(store, region, reason, () => store.journal.updateRegion(row));
  } catch (error) {
    if (!isOutOfMemory(error) || isLeased(store, region)) throw error;
    beginDrain(store, region, reason, () => {});
    region.isRowOwed = true;
  }
}

/** How the row of a region looks once it drains. */
export function toDraining(region: Region, reason: EndReason): Region {
  const state = nextState(region, reason === "replaced" ? "replaced" : "delete");
  return { ...region, state, reason, name: null, pendingName: null, revision: region.revision + 1 };
}

/** Writes the row, then changes the books; if the row cannot be written nothing has changed. */
export function beginDrain(store: Store, region: Region, reason: EndReason, write: () => void): void {
  write();
  store.expiring.cancel(region);
  const { name } = region;
  store.books.releaseName(region);
  region.reason = reason;
  region.revision += 1;
  store.books.setState(region, nextState(region, reason === "replaced" ? "replaced" : "delete"));
  // Who waits for the name to be built has to know that nobody builds it any more.
  if (name !== null) store.waiters.wake(region.model, name);
}
