/**
 * Hand-offs: regions with a linger of 0 ms, which wait for a consumer from their seal on. What locks, reports and fetches
 * say of their consumers is taken down here, and when that ends them; `expire.ts` ends them.
 */

import type { RegionRecord } from "../journal/region-record.ts";
import { limits } from "../limits.ts";
import type { Region } from "../state/region.ts";
import type { Store } from "../state/store.ts";
import type { Usage } from "../storage/storage.ts";

export function isHandOff({ owner }: Pick<RegionRecord, "owner">): boolean {
  return owner.kind === "linger" && owner.lingerMs === 0;
}

/**
 * The wait begins, if the region is a sealed hand-off. One that is open still is not handed off yet: who maps it may come
 * and go, as in a ring.
 * @param usage as it is now. A maker that has no byte of its own is one of those who hold the lease byte.
 */
export function beginHandOff(store: Store, region: Region, usage: Usage | undefined): void {
  const isTelling = usage === undefined || usage.made || !usage.consumed;
  region.handOff =
    isHandOff(region) && region.state === "sealed"
      ? { since: store.now(), isTelling, consumedAt: 0, isLetGo: false, fetches: 0, fetchedAt: 0 }
      : null;
}

/** Takes down what its locks say now. @returns whether somebody uses it for whom it has to stay. */
export function lookAtUse(store: Store, region: Region, usage: Usage | undefined): boolean {
  const { handOff } = region;
  const now = store.now();
  const isLeased = region.serverLeases > 0 || usage?.leased === true;
  if (isLeased) region.leasedAt = now;
  if (handOff === null) return isLeased;
  const isMapped = usage?.consumed === true;
  // Whoever held the lease byte at the seal has let go: from here on it is a consumer's.
  if (!isMapped) handOff.isTelling = true;
  if ((isMapped && handOff.isTelling) || store.requestedLeases.of(region).size > 0) {
    handOff.consumedAt = now;
    handOff.fetches = 0;
  }
  // Its maker's hold keeps it for a consumer who is yet to come.
  const isAwaited = handOff.consumedAt === 0 && handOff.fetchedAt === 0;
  return isMapped || region.serverLeases > 0 || (isLeased && isAwaited);
}

/** When it ends, as far as is known now, unless somebody uses it then. */
export function handOffEnd({ handOff, createdAt, leasedAt, lastUsedAt }: Region, handoffMs: number): number {
  const { since = createdAt, consumedAt = 0, isLetGo = false, fetches = 0, fetchedAt = 0 } = handOff ?? {};
  if (consumedAt > 0) {
    if (isLetGo && fetches === 0) return consumedAt;
    return Math.max(consumedAt + limits.handOutTakenMs, fetches > 0 ? fetchedAt + limits.handOutMs : 0);
  }
  const end = fetchedAt > 0 ? fetchedAt + limits.handOutMs : Math.max(since, leasedAt) + handoffMs;
  // Who looked may be about to map it all the same. Who goes on looking does not keep it.
  return Math.max(end, Math.min(lastUsedAt, end) + limits.handOutMs);
}
