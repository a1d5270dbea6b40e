/**
 * Eviction: sealed regions that their makers called evictable and that nobody maps make room, least recently used first,
 * and only as many as are needed. What was handed out a moment ago stays, since its reader may be about to map it.
 */

import { limits } from "../limits.ts";
import type { Model, Region } from "../state/region.ts";
import type { Session } from "../state/session.ts";
import type { Store } from "../state/store.ts";
import { deleteRegion } from "./delete.ts";
import { isLeased } from "./free.ts";

export interface EvictionRequest {
  readonly bytes: number;
  /** Only regions in that memory. */
  readonly poolName?: string | undefined;
  /** Only this model's regions. */
  readonly model?: Model | undefined;
  readonly dryRun?: boolean | undefined;
  /** Nothing goes unless all that is asked for can: half of it helps nobody. */
  readonly isAllOrNothing?: boolean | undefined;
  /** Of this session only. */
  readonly session?: Session | undefined;
}

export type KeptReason = "leased" | "handed-out" | "not-needed";

export interface Victim {
  readonly region: Region;
  /** As it was called; a region that goes loses its name first. */
  readonly name: string | null;
}

export interface Eviction {
  readonly evicted: readonly Victim[];
  /** What could have gone, or nearly, and why it stays; the first of them. */
  readonly kept: readonly { readonly region: Region; readonly reason: KeptReason }[];
  readonly freedBytes: number;
  /** Whether the bytes that were asked for are free. */
  readonly isEnough: boolean;
}

/** Evicts until `bytes` are free, or as much as policy allows. @throws TensordError as `Store.checkPool`. */
export async function evict(store: Store, request: EvictionRequest, actor?: string): Promise<Eviction> {
  if (request.poolName !== undefined) store.checkPool(request.poolName, "free bytes of");
  const { evicted, kept } = chooseVictims(store, request);
  let freedBytes = 0;
  const gone: Victim[] = [];
  for (const victim of evicted) {
    const { region } = victim;
    // Another turn may have mapped or deleted it meanwhile.
    if (request.dryRun !== true && (region.state !== "sealed" || isLeased(store, region))) continue;
    const bytes = region.chargedBytes;
    if (request.dryRun !== true && (await deleteRegion(store, region, "evicted", actor)).state !== "deleted") continue;
    freedBytes += bytes;
    gone.push(victim);
  }
  return { evicted: gone, kept, freedBytes, isEnough: freedBytes >= request.bytes };
}

function chooseVictims(store: Store, request: EvictionRequest): Pick<Eviction, "evicted" | "kept"> {
  const { bytes, poolName, model, session, isAllOrNothing = false } = request;
  const evicted: Victim[] = [];
  const kept: { region: Region; reason: KeptReason }[] = [];
  let found = 0;
  let looked = 0;
  for (const region of store.books.evictables) {
    looked += 1;
    if (looked > limits.evictScan) break;
    if (region.state !== "sealed") continue;
    if (poolName !== undefined && region.poolName !== poolName) continue;
    if (model !== undefined && region.modelBooks !== model) continue;
    if (session !== undefined && store.books.sessionOf(region) !== session) continue;
    const reason = found >= bytes ? "not-needed" : whyKept(store, region);
    if (reason === undefined) {
      evicted.push({ region, name: region.name });
      found += region.chargedBytes;
    } else if (kept.length < limits.evictionsShown) kept.push({ region, reason });
    else if (found >= bytes) break;
  }
  return { evicted: isAllOrNothing && found < bytes ? [] : evicted, kept };
}

function whyKept(store: Store, region: Region): KeptReason | undefined {
  if (isLeased(store, region)) return "leased";
  return store.now() - region.lastUsedAt < limits.handOutMs ? "handed-out" : undefined;
}
