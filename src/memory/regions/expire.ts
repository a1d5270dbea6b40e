/**
 * How owners end regions: a TTL that is over, a linger that nobody interrupted, a session that has ended. A sealed region
 * that is still leased keeps its name and goes when its last lease ends; only a request takes the name at once.
 */

import { describe, type EndReason } from "../journal/region-record.ts";
import { limits } from "../limits.ts";
import { hasEnded } from "../state/lifecycle.ts";
import type { Region } from "../state/region.ts";
import type { Store } from "../state/store.ts";
import { deleteRegion, freeTaken, takeOut } from "./delete.ts";
import { isLeased } from "./drain.ts";

/** Sets when the region's owner is asked next, from now. */
export function scheduleExpiry(store: Store, region: Region): void {
  region.pollDelayMs = 0;
  if (region.owner.kind === "linger") return scheduleLinger(store, region, region.owner.lingerMs);
  if (region.expiresAt === null) return store.expiring.cancel(region);
  store.expiring.schedule(region, region.expiresAt);
}

/** Called when a region's time has come, or may have. */
export function expireRegion(store: Store, region: Region): void {
  if (hasEnded(region.state)) return;
  try {
    if (region.owner.kind === "linger") return lingerOn(store, region, region.owner.lingerMs);
    if (region.expiresAt === null) return;
    const now = store.now();
    if (region.expiresAt > now) return store.expiring.schedule(region, region.expiresAt);
    if (region.state === "sealed" && isLeased(store, region)) {
      return store.expiring.schedule(region, now + limits.drainPollMaxMs);
    }
  } catch (error) {
    store.warn(`Cannot ask for leases of ${describe(region)}`, error);
    return store.expiring.schedule(region, store.now() + limits.drainPollMaxMs);
  }
  end(store, region);
}

/**
 * Takes a region whose owner is gone out of the books in this turn, unless it is sealed and leased.
 * @returns what frees its memory and gives the bytes, or undefined if it stays.
 */
export function endOwned(
  store: Store,
  region: Region,
  reason: EndReason,
  actor: string,
): (() => Promise<number>) | undefined {
  if (region.creation !== null) {
    const cancelled = deleteRegion(store, region, reason, actor);
    return async () => (await cancelled).freedBytes;
  }
  if (region.state === "sealed" && isLeased(store, region)) {
    const now = store.now();
    store.books.change(region, { session: null, expiresAt: now });
    store.expiring.schedule(region, now + limits.drainPollMinMs);
    return undefined;
  }
  takeOut(store, region, reason, actor);
  return async () => (await freeTaken(store, region, actor)).freedBytes;
}

function lingerOn(store: Store, region: Region, lingerMs: number): void {
  const now = store.now();
  if (isLeased(store, region)) region.leasedAt = now;
  region.expiresAt = lingerEnd(region, lingerMs);
  if (region.expiresAt <= now && region.leasedAt < now) return end(store, region);
  scheduleLinger(store, region, lingerMs);
}

/** Who was handed the descriptor must get to map it. Once the region was seen mapped since, that is nearly certain. */
function lingerEnd(region: Region, lingerMs: number): number {
  const { leasedAt, createdAt, lastUsedAt } = region;
  const handedOut = lastUsedAt + (leasedAt >= lastUsedAt ? limits.handOutTakenMs : limits.handOutMs);
  return Math.max(Math.max(leasedAt, createdAt) + lingerMs, handedOut);
}

function scheduleLinger(store: Store, region: Region, lingerMs: number): void {
  const longest = Math.min(Math.max(lingerMs / 4, limits.drainPollMaxMs), limits.lingerPollMaxMs);
  region.pollDelayMs = Math.min(Math.max(2 * region.pollDelayMs, limits.lingerPollMinMs), longest);
  store.expiring.schedule(region, store.now() + region.pollDelayMs);
}

function end(store: Store, region: Region): void {
  const reason = region.owner.kind === "persist" ? "request" : region.owner.kind;
  deleteRegion(store, region, reason, reason).catch((error) => {
    store.warn(`Cannot end ${describe(region)}, whose time is over`, error);
    store.expiring.schedule(region, store.now() + limits.drainPollMaxMs);
  });
}
