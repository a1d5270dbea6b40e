/**
 * Eviction: sealed regions that their makers called evictable and that nobody maps make room, least recently used first,
 * and only as many as are needed. What was handed out a moment ago stays, since its reader may be about to map it.
 */

import { limits } from "../limits.ts";
import type { EvictablePages } from "../state/evictable.ts";
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
  /** Pages of this elastic pool only. */
  readonly ownPool?: object | undefined;
  /** Until when it waits for workers that have pages; of `performance.now()`. They go on leaving after that. */
  readonly deadline?: number | undefined;
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
  const { evicted, pages, kept } = chooseVictims(store, request);
  const leaving = request.dryRun === true ? [] : pages.map((each) => each.evict(actor));
  let freedBytes = request.dryRun === true ? pages.reduce((sum, each) => sum + each.freeableBytes, 0) : 0;
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
  freedBytes += await settleBy(leaving, request.deadline ?? performance.now() + limits.elasticEvictMs);
  return { evicted: gone, kept, freedBytes, isEnough: freedBytes >= request.bytes };
}

/** The sum of what they come to, or have come to when it is over. */
async function settleBy(leaving: readonly Promise<number>[], deadline: number): Promise<number> {
  if (leaving.length === 0) return 0;
  let freedBytes = 0;
  const { promise: late, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, Math.max(0, deadline - performance.now()));
  const adding = leaving.map(async (each) => {
    freedBytes += await each;
  });
  await Promise.race([Promise.all(adding), late]);
  clearTimeout(timer);
  return freedBytes;
}

interface Chosen extends Pick<Eviction, "evicted" | "kept"> {
  readonly pages: readonly EvictablePages[];
}

function chooseVictims(store: Store, request: EvictionRequest): Chosen {
  const { bytes, isAllOrNothing = false } = request;
  const evicted: Victim[] = [];
  const pages: EvictablePages[] = [];
  const kept: { region: Region; reason: KeptReason }[] = [];
  let found = 0;
  let looked = 0;
  for (const region of store.books.evictables) {
    looked += 1;
    if (looked > limits.evictScan) break;
    if (!isWithin(store, region, request)) continue;
    if ("evict" in region) {
      if (found >= bytes || !mayGo(store, region)) continue;
      pages.push(region);
      found += region.freeableBytes;
      continue;
    }
    // To make room nothing goes that leaves none.
    if (isAllOrNothing && region.chargedBytes === 0) continue;
    const reason = found >= bytes ? "not-needed" : whyKept(store, region);
    if (reason === undefined) {
      evicted.push({ region, name: region.name });
      found += region.chargedBytes;
    } else if (kept.length < limits.evictionsShown) kept.push({ region, reason });
    else if (found >= bytes) break;
  }
  if (isAllOrNothing && found < bytes) return { evicted: [], pages: [], kept };
  return { evicted, pages, kept };
}

/** Whether it is of that memory, that model, that session and that pool, where one is named. No session is charged for pages. */
function isWithin(store: Store, one: Region | EvictablePages, request: EvictionRequest): boolean {
  const { poolName, model, session, ownPool } = request;
  if (poolName !== undefined && one.poolName !== poolName) return false;
  if (model !== undefined && one.modelBooks !== model) return false;
  if ("evict" in one) return session === undefined && (ownPool === undefined || one.ownPool === ownPool);
  if (one.state !== "sealed" || ownPool !== undefined) return false;
  return session === undefined || store.books.sessionOf(one) === session;
}

/** What leaves already counts, so that no more goes than is needed. */
function mayGo(store: Store, pages: EvictablePages): boolean {
  if (pages.freeableBytes === 0) return false;
  return pages.isLeaving || store.now() - pages.lastUsedAt >= limits.handOutMs;
}

function whyKept(store: Store, region: Region): KeptReason | undefined {
  if (isLeased(store, region)) return "leased";
  return store.now() - region.lastUsedAt < limits.handOutMs ? "handed-out" : undefined;
}
