/** Deletion by request, TTL or replacement: the name goes at once, the bytes when the last lease is gone. */

import { isOutOfMemory } from "../journal/journal-failure.ts";
import type { EndReason } from "../journal/region-record.ts";
import { nextState } from "../state/lifecycle.ts";
import type { Region, RegionChange } from "../state/region.ts";
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
    store.books.change(region, { name: null, pendingName: null });
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
  const { name } = region;
  changeRow(store, region, toEnding(region, reason));
  store.expiring.cancel(region);
  // Who waits for the name to be built has to know that nobody builds it any more.
  if (name !== null) store.waiters.wake(region.model, name);
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
function changeRow(store: Store, region: Region, ending: RegionChange): void {
  try {
    store.change("delete.journaled", [region, ending]);
  } catch (error) {
    if (!isOutOfMemory(error) || isLeased(store, region)) throw error;
    store.books.change(region, { ...ending, revision: region.revision + 1 });
    region.isRowOwed = true;
  }
}

/** How a region looks once it drains. */
export function toEnding(region: Region, reason: EndReason): RegionChange {
  const state = nextState(region, reason === "replaced" ? "replaced" : "delete");
  return { state, reason, name: null, pendingName: null };
}
