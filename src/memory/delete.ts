/** Deletion by request, TTL or replacement: the name goes at once, the bytes when the last lease is gone. */

import { cancelled } from "./create.ts";
import { drainRegion, isLeased, writeOwedRow } from "./drain.ts";
import { isOutOfMemory } from "./journal/journal.ts";
import { nextState } from "./lifecycle.ts";
import { limits } from "./limits.ts";
import { describe, type EndReason, type Region } from "./region.ts";
import type { Store } from "./store.ts";

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
    beginRequestedDrain(store, region, reason);
    store.step("delete.journaled");
    store.emit({ type: "tensord.region.draining", region, actor });
    if (await drainRegion(store, region, actor)) return { state: "deleted", freedBytes: region.chargedBytes };
  }
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
  const state = nextState(region.state, reason === "replaced" ? "replaced" : "delete", describe(region));
  return { ...region, state, reason, name: null, pendingName: null, revision: region.revision + 1 };
}

/** Writes the row, then changes the books; if the row cannot be written nothing has changed. */
export function beginDrain(store: Store, region: Region, reason: EndReason, write: () => void): void {
  write();
  store.expiring.cancel(region);
  store.books.releaseName(region);
  region.reason = reason;
  region.revision += 1;
  store.books.setState(region, "draining");
}

/** A region whose TTL has ended goes, but a sealed one that is still leased keeps its name until the last lease ends. */
export function expireRegion(store: Store, region: Region): void {
  if (region.expiresAt === null || region.state === "draining" || region.state === "deleted") return;
  const now = store.now();
  if (region.expiresAt > now) return store.expiring.schedule(region, region.expiresAt);
  try {
    if (region.state === "sealed" && isLeased(store, region))
      return store.expiring.schedule(region, now + limits.drainPollMaxMs);
  } catch (error) {
    store.warn(`Cannot ask for leases of ${describe(region)}`, error);
  }
  deleteRegion(store, region, "ttl", "ttl").catch((error) => {
    store.warn(`Cannot end ${describe(region)}, whose TTL is over`, error);
    store.expiring.schedule(region, store.now() + limits.drainPollMaxMs);
  });
}
