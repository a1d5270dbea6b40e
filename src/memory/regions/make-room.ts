/**
 * Creations that wait for memory, in the order in which they came. One that waits for its own session or model lets
 * others pass; one that waits for the server's memory does not, or a large one would never have its turn.
 */

import { TensordError } from "../error.ts";
import { limits } from "../limits.ts";
import { findShortage, type Shortage, toShortageError } from "../state/quota.ts";
import type { RoomRequest } from "../state/room-queue.ts";
import type { Store } from "../state/store.ts";
import { evict } from "./evict.ts";
import { freeDrained } from "./free.ts";

/** Whether `request.bytes` can be charged in this turn of the event loop, and nobody is before it in line. */
export function hasRoom(store: Store, request: RoomRequest): boolean {
  return !isBehindOthers(store, request) && findShortage(store.books, request) === undefined;
}

/**
 * Makes room, or waits for it. Time passes meanwhile, so everything is to be looked at again.
 * @throws TensordError a 507 if there cannot be room, `deadline-exceeded` after waiting in vain.
 */
export async function makeRoom(store: Store, request: RoomRequest, signal: AbortSignal): Promise<void> {
  const { onFull } = request;
  let left = findShortage(store.books, request);
  if (left !== undefined) {
    await freeDrained(store);
    left = findShortage(store.books, request);
  }
  if (left !== undefined && (onFull === "fail" || isHopeless(store, request))) {
    throw toShortageError(store.books, request, left);
  }
  // More than one limit may be short, and one that was lowered lacks more than it says.
  for (let freedBytes = 1; left !== undefined && freedBytes > 0; left = findShortage(store.books, request)) {
    freedBytes = await evictFor(store, request, left);
  }
  if (left === undefined && !isBehindOthers(store, request)) return;
  if (left !== undefined && onFull === "evict") throw toShortageError(store.books, request, left);
  await waitInLine(store, request, signal);
}

/** Each pool has a line of its own. */
function isBehindOthers(store: Store, { onFull, hasTurn, poolName }: RoomRequest): boolean {
  return onFull === "wait" && !hasTurn && store.room.waitsFor(poolName);
}

/** More than there would be if everything else were gone: no waiting helps. */
function isHopeless(store: Store, { model, poolName, session, bytes, own }: RoomRequest): boolean {
  if (own !== undefined && own.requestedBytes > own.limitBytes) return true;
  const pools = [store.books.pools.get(poolName), model.pools.get(poolName)];
  const most = [...pools.map(({ usableBytes }) => usableBytes), session?.quotaBytes ?? Number.POSITIVE_INFINITY];
  return most.some((usableBytes) => bytes > usableBytes);
}

/** @returns the bytes that went for it. */
async function evictFor(
  store: Store,
  { model, session, actor, deadline }: RoomRequest,
  shortage: Shortage,
): Promise<number> {
  const isSessions = shortage.code === "session-quota-exceeded";
  const { freedBytes } = await evict(
    store,
    {
      bytes: shortage.requestedBytes - shortage.availableBytes,
      isAllOrNothing: true,
      // A session's quota is of all memory.
      poolName: isSessions ? undefined : shortage.poolName,
      model: shortage.code === "model-limit-exceeded" ? model : undefined,
      session: isSessions && session !== null ? session : undefined,
      ownPool: shortage.own?.ownPool,
      deadline,
    },
    actor,
  );
  return freedBytes;
}

async function waitInLine(store: Store, request: RoomRequest, signal: AbortSignal): Promise<void> {
  if (store.room.size >= limits.waiters) {
    throw new TensordError("too-many-requests", `Cannot wait for memory: ${store.room.size} creations wait already`, {
      hint: "Ask again in a while, or without waiting (`on_full`).",
    });
  }
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const waiting = { ...request, wake: resolve };
  const stop = AbortSignal.any([signal, store.stopping]);
  const abort = () => reject(stop.reason);
  stop.addEventListener("abort", abort);
  const timer = setTimeout(() => reject(tooLate(store, request)), Math.max(0, request.deadline - performance.now()));
  // A lease ends without a word, so what may be evicted has to be asked for again and again.
  const retry = setInterval(() => void evictAgain(store, waiting), limits.evictRetryMs);
  store.room.add(waiting);
  // It may have become free while the way here was awaited.
  store.room.pump(store.books);
  try {
    await promise;
  } finally {
    clearTimeout(timer);
    clearInterval(retry);
    stop.removeEventListener("abort", abort);
    store.room.remove(waiting);
  }
}

/** Only for who is first in line: what others could use goes no earlier than they do. */
async function evictAgain(store: Store, waiting: RoomRequest): Promise<void> {
  if (store.room.firstOf(waiting.poolName) !== waiting) return;
  const shortage = findShortage(store.books, waiting);
  try {
    // What a creation was charged that failed comes back without an event.
    if (shortage === undefined) store.room.pump(store.books);
    else await evictFor(store, waiting, shortage);
  } catch (error) {
    store.warn("Cannot evict for a creation that waits; the next try comes soon", error);
  }
}

function tooLate(store: Store, request: RoomRequest): TensordError {
  const shortage = findShortage(store.books, request);
  const error = shortage && toShortageError(store.books, request, shortage);
  return new TensordError(
    "deadline-exceeded",
    // A shortage is a sentence of its own.
    error === undefined
      ? "Cannot wait longer for memory: what came free is for those who asked before"
      : `Cannot wait longer for memory. ${error.message}`,
    {
      ...error?.facts,
      hint: "Wait for longer, free memory, or mark what may go as `evictable`.",
    },
  );
}
