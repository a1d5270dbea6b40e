/** Closing the holes of a pool: the same pages lie elsewhere in its range, and workers map them anew. */

import type { PageMove } from "../../memory/state/elastic.ts";
import type { Store } from "../../memory/state/store.ts";
import { type Departing, toRunRow } from "./departing.ts";
import type { PoolBooks } from "./pool-books.ts";
import { inUse, pagesOnTheirWay } from "./refusals.ts";

/** @throws TensordError as `ElasticPools.compact`. */
export function compactPool(
  store: Store,
  departing: Departing,
  pool: PoolBooks,
): { readonly moves: readonly PageMove[]; readonly sequence: number } {
  departing.reap(pool);
  if (pool.coming.size > 0) throw pagesOnTheirWay(pool, "made");
  if (pool.departures.size > 0) throw pagesOnTheirWay(pool, "leaving");
  const unwilling = [...pool.workers.values()].filter(({ agreesToMoves }) => !agreesToMoves);
  if (unwilling.length > 0) throw inUse(pool, "compact", unwilling);
  const planned = pool.map.planMoves();
  if (planned.length === 0) return { moves: [], sequence: store.events.last };
  store.journal.freeElastic(pool.key, {
    put: planned.map(({ run, move }) => ({ ...toRunRow(run), index: move.to })),
  });
  store.step("vmm.moves-journaled");
  pool.map.applyMoves();
  const moves = planned.map(({ move: { from, to, count, firstPage } }) => ({
    fromByteOffset: from * pool.pageSize,
    toByteOffset: to * pool.pageSize,
    byteSize: count * pool.pageSize,
    firstPage,
  }));
  store.emit({ type: "tensord.vmm.moved", elastic: pool, moves });
  return { moves, sequence: store.events.last };
}
