/** Unmapping by request: of a range, which is followed and cancelled as an operation, and of all that no worker has. */

import { startOperation } from "../../memory/operations/run.ts";
import { idOfPool, type UnmapRequest } from "../../memory/state/elastic.ts";
import type { Operation } from "../../memory/state/operation.ts";
import type { Store } from "../../memory/state/store.ts";
import type { Departing } from "./departing.ts";
import type { Hole } from "./page-map.ts";
import type { PoolBooks } from "./pool-books.ts";
import { notMapped, toPages } from "./refusals.ts";

/** @throws TensordError as `ElasticPools.unmap`. */
export function unmapPages(
  store: Store,
  departing: Departing,
  pool: PoolBooks,
  { byteOffset, byteSize, createdBy, actor }: UnmapRequest,
): Operation {
  const { index, count } = toPages(pool, { byteOffset, byteSize }, "unmap");
  const lacking = pool.map.firstLacking(index, count, (run) => run.isMapped);
  if (lacking !== undefined) throw notMapped(pool, { byteOffset, byteSize }, lacking);
  const facts = { model: pool.model.name, createdBy, requestKey: null, source: idOfPool(pool) };
  // The work begins in this turn, so that what was looked at is so still.
  return startOperation(store, { kind: "unmap", ...facts, totalBytes: byteSize }, async (onBytes, signal) => {
    const runs = departing.isolate(pool, index, count);
    const departure = departing.announce(pool, runs, { reason: "request", actor, onBytes });
    const undo = () => void departing.undo(pool, departure);
    signal.addEventListener("abort", undo);
    if (signal.aborted) undo();
    try {
      await departure.done;
    } finally {
      signal.removeEventListener("abort", undo);
    }
    if (departure.failure !== undefined) throw departure.failure;
    if (departure.isUndone) signal.throwIfAborted();
    return null;
  });
}

/** @throws TensordError `out-of-shared-memory`. */
export async function trimPool(
  store: Store,
  departing: Departing,
  pool: PoolBooks,
  actor: string | undefined,
): Promise<{ readonly freedBytes: number; readonly sequence: number }> {
  departing.reap(pool);
  const unused = findUnused(pool).flatMap(({ index, count }) => departing.isolate(pool, index, count));
  if (unused.length === 0) return { freedBytes: 0, sequence: store.events.last };
  const departures = departing.announceEach(pool, unused, { reason: "trimmed", actor });
  const sequence = store.events.last;
  const freed = await Promise.all(departures.map(({ done }) => done));
  return { freedBytes: freed.reduce((sum, bytes) => sum + bytes, 0), sequence };
}

/** Pages side by side, of one run each, that no worker has. */
function findUnused({ map, takers }: PoolBooks): Hole[] {
  const found: Hole[] = [];
  for (const run of map.runs) {
    if (!run.isMapped) continue;
    let first: number | undefined;
    for (let each = 0; each <= run.count; each++) {
      const isUnused = each < run.count && !takers.has(run.firstPage + each);
      if (isUnused) first ??= each;
      else if (first !== undefined) {
        found.push({ index: run.index + first, count: each - first });
        first = undefined;
      }
    }
  }
  return found;
}
