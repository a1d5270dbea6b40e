/**
 * When owners end regions: a TTL that is over, a linger that nobody interrupted, a session that has ended. A sealed region
 * that is still leased keeps its name and goes when its last lease ends; only a request takes the name at once.
 */

import { describe, type Owner } from "../journal/region-record.ts";
import { limits } from "../limits.ts";
import { hasEnded } from "../state/lifecycle.ts";
import type { Region } from "../state/region.ts";
import type { Store } from "../state/store.ts";
import { deleteRegion } from "./delete.ts";
import { endRegion } from "./end.ts";
import { isLeased } from "./free.ts";
import { handOffEnd, isHandOff, lookAtUse } from "./hand-off.ts";

/** Sets when the region's owner is asked next, from now. */
export function scheduleExpiry(store: Store, region: Region): void {
  region.pollDelayMs = 0;
  if (region.owner.kind === "linger") return scheduleLinger(store, region, region.owner.lingerMs);
  if (region.expiresAt === null) return store.expiring.cancel(region);
  store.expiring.schedule(region, region.expiresAt);
}

/** Called when a region's time has come, or may have. */
export async function expireRegion(store: Store, region: Region): Promise<void> {
  if (hasEnded(region.state)) return;
  const reason = region.owner.kind === "persist" ? "request" : region.owner.kind;
  try {
    if (isOver(store, region)) await deleteRegion(store, region, reason);
  } catch (error) {
    store.warn(`Cannot end ${describe(region)}, whose time may be over`, error);
    store.expiring.schedule(region, store.now() + limits.drainPollMaxMs);
  }
}

/**
 * Ends a region whose session is gone, in this turn; one that is sealed and leased only loses the session.
 * @returns whether it ended, and `freeRegion` is owed.
 * @throws TensordError if the row cannot be written; the region then stands as it was.
 */
export function endWithSession(store: Store, region: Region, actor?: string): boolean {
  if (!keepsName(store, region)) return endRegion(store, region, "session", actor);
  const now = store.now();
  store.books.change(region, { session: null, expiresAt: now });
  store.expiring.schedule(region, now + limits.drainPollMinMs);
  return false;
}

function keepsName(store: Store, region: Region): boolean {
  return region.state === "sealed" && isLeased(store, region);
}

/** Whether the owner lets the region go now. If not, it is asked again. */
function isOver(store: Store, region: Region): boolean {
  if (region.owner.kind === "linger") return isLingerOver(store, region, region.owner);
  if (region.expiresAt === null) return false;
  const now = store.now();
  const isDue = region.expiresAt <= now;
  if (isDue && !keepsName(store, region)) return true;
  store.expiring.schedule(region, isDue ? now + limits.drainPollMaxMs : region.expiresAt);
  return false;
}

type Linger = Extract<Owner, { kind: "linger" }>;

function isLingerOver(store: Store, region: Region, owner: Linger): boolean {
  const now = store.now();
  const isUsed = lookAtUse(store, region, store.storages.of(region).memory.usage(region.token));
  region.expiresAt = lingerEnd(region, owner);
  if (region.expiresAt <= now && !isUsed) return true;
  scheduleLinger(store, region, owner.lingerMs);
  return false;
}

/** Who was handed the descriptor must get to map it. Once the region was seen mapped since, that is nearly certain. */
function lingerEnd(region: Region, { lingerMs, handoffMs }: Linger): number {
  if (isHandOff(region)) return handOffEnd(region, handoffMs);
  const { leasedAt, createdAt, lastUsedAt } = region;
  const handedOut = lastUsedAt + (leasedAt >= lastUsedAt ? limits.handOutTakenMs : limits.handOutMs);
  return Math.max(Math.max(leasedAt, createdAt) + lingerMs, handedOut);
}

function scheduleLinger(store: Store, region: Region, lingerMs: number): void {
  const longest = Math.min(Math.max(lingerMs / 4, limits.drainPollMaxMs), limits.lingerPollMaxMs);
  region.pollDelayMs = Math.min(Math.max(2 * region.pollDelayMs, limits.lingerPollMinMs), longest);
  store.expiring.schedule(region, store.now() + region.pollDelayMs);
}
