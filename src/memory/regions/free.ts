/**
 * The way out of memory: name, question, keeper, row, in this order. What is still leased, or linked elsewhere, drains
 * and is asked again, quickly at first.
 */

import { isOutOfMemory } from "../journal/journal-failure.ts";
import { describe } from "../journal/region-record.ts";
import { limits } from "../limits.ts";
import { nextState } from "../state/lifecycle.ts";
import type { Region } from "../state/region.ts";
import type { Store } from "../state/store.ts";

export interface Deletion {
  readonly state: "deleted" | "draining";
  readonly freedBytes: number;
}

/** What has become of a region that ended. */
export function toDeletion({ state, chargedBytes }: Region): Deletion {
  return state === "deleted" ? { state, freedBytes: chargedBytes } : { state: "draining", freedBytes: 0 };
}

/**
 * Frees a region that `endRegion` has ended just now: at once if nobody maps it, else by itself, later.
 * @throws TensordError `out-of-shared-memory` if it drains and its row cannot say so.
 */
export async function freeRegion(store: Store, region: Region, actor?: string): Promise<Deletion> {
  // A creation undoes itself.
  if (region.reason === "aborted") await region.creation?.ended;
  else {
    await store.downloads.settle(region.identity);
    if (!(await tryFree(store, region, actor))) writeOwedRow(store, region);
  }
  return toDeletion(region);
}

/**
 * Tries once to free a draining region, and schedules the next try if it cannot go yet.
 * @returns whether it is gone. An error of the system is reported and tried again, never thrown.
 */
export async function tryFree(store: Store, region: Region, actor?: string): Promise<boolean> {
  const trying = freeOrSchedule(store, region, actor);
  store.freeing.add(trying);
  try {
    return await trying;
  } finally {
    store.freeing.delete(trying);
  }
}

/** Frees what drains and was let go of, now: a lease ends without a word, and its next question may be a second away. */
export async function freeDrained(store: Store): Promise<void> {
  for (const region of Iterator.from(store.draining.items).take(limits.drainPollSlice)) {
    if (isLeased(store, region)) continue;
    store.draining.cancel(region);
    void tryFree(store, region);
  }
  await Promise.all(store.freeing);
}

async function freeOrSchedule(store: Store, region: Region, actor: string | undefined): Promise<boolean> {
  try {
    if (await free(store, region, actor)) return true;
  } catch (error) {
    region.pollDelayMs = limits.drainPollMaxMs;
    store.warn(`Cannot free ${describe(region)} yet`, error);
  }
  region.pollDelayMs = Math.min(Math.max(2 * region.pollDelayMs, limits.drainPollMinMs), limits.drainPollMaxMs);
  store.draining.schedule(region, store.now() + region.pollDelayMs);
  return false;
}

async function free(store: Store, region: Region, actor: string | undefined): Promise<boolean> {
  const { memory, names } = store.storages.of(region);
  try {
    writeOwedRow(store, region);
  } catch (error) {
    if (!isOutOfMemory(error)) throw error;
  }
  // The name first: whoever opened it earlier and locks it only now looks at the name after that, and lets go.
  names.withdraw(region.token, region.identity);
  store.step("delete.withdrawn");
  region.waitsFor = "lease";
  if (isLeased(store, region)) return false;
  store.step("delete.asked");
  if ((await memory.free(region.token, region.byteSize)) === "hard-link") {
    region.waitsFor = "hard-link";
    return false;
  }
  store.step("delete.keeper-unlinked");
  forgetRegion(store, region, "freed");
  region.waitsFor = null;
  // Of one whose creation was never told nobody waits for the end.
  if (region.reason !== "aborted") store.emit({ type: "tensord.region.deleted", region, actor });
  return true;
}

/** The last step of every end: no proof, no row, no place in the books, nobody who holds it. */
export function forgetRegion(store: Store, region: Region, event: "freed" | "lost"): void {
  store.proofs.remove(region.token);
  store.journal.deleteRegion(region.key);
  store.step("delete.row-deleted");
  void removeList(store, region);
  const formerName = region.name ?? region.formerName;
  store.books.change(region, { state: nextState(region, event), name: null, pendingName: null, formerName });
  store.holders.forgetRegion(region);
}

/** Removes the file of a long list, if there is one, once no row stands for it. The next start removes what stays. */
export async function removeList(store: Store, region: Region): Promise<void> {
  try {
    await store.tensorFiles.remove(region.token);
  } catch (error) {
    store.warn(`Cannot remove the list of tensors of ${describe(region)}; the next start will`, error);
  }
}

/**
 * Writes the row that was owed, if one is: what is not written a crash would undo, so it is not promised.
 * @throws TensordError `out-of-shared-memory` while there is no page for it.
 */
export function writeOwedRow(store: Store, region: Region): void {
  if (!region.isRowOwed) return;
  store.journal.updateRegions([region]);
  region.isRowOwed = false;
}

/** Whether anybody maps the region, a request inside the server included. */
export function isLeased(store: Store, region: Region): boolean {
  return region.serverLeases > 0 || store.storages.of(region).memory.usage(region.token)?.leased === true;
}
