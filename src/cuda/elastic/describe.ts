/** What is told of a pool: its sums, and its lists, of which no answer has more than so many. */

import { limits } from "../../memory/limits.ts";
import type {
  OverduePages,
  OwedPage,
  PoolDescription,
  PoolFigures,
  PoolRange,
  WorkerDescription,
} from "../../memory/state/elastic.ts";
import type { Store } from "../../memory/state/store.ts";
import { fragmentation } from "./page-map.ts";
import type { PoolBooks, PoolMember, PoolRun } from "./pool-books.ts";
import { toPages } from "./refusals.ts";
import { thresholds } from "./thresholds.ts";

export function toFigures(store: Store, pool: PoolBooks): PoolFigures {
  const { map, memory, pageSize } = pool;
  let largest = 0;
  for (const { count } of map.holes()) largest = Math.max(largest, count);
  const free = map.capacity - map.pages;
  return {
    physicalBytes: pool.physicalBytes,
    mappedBytes: pool.mappedPages * pageSize,
    runCount: pool.runCount,
    freeBytes: free * pageSize,
    largestFreeBytes: largest * pageSize,
    fragmentation: fragmentation(free, largest),
    sequence: store.events.last,
    survivesRestart: memory.keepsAll(pool.token),
  };
}

/** @throws TensordError `out-of-range`. */
export function describePool(store: Store, pool: PoolBooks, range?: PoolRange): PoolDescription {
  const { map, pageSize } = pool;
  const asked = range && toPages(pool, range, "look at");
  const mapped = Iterator.from(map.runs).filter((run) => run.isMapped);
  const leaving = Iterator.from(map.runs).filter((run) => run.isLeaving);
  const listed = limits.elasticListed;
  return {
    ...toFigures(store, pool),
    runs: [...mapped.take(listed).map((run) => run.toRun())],
    freeRuns: [
      ...map
        .holes()
        .take(listed)
        .map(({ index, count }) => ({ byteOffset: index * pageSize, byteSize: count * pageSize })),
    ],
    leaving: [...leaving.take(listed).map((run) => run.toLeavingRun(findTakers(pool, run)))],
    unreleased: listOwed(pool, false),
    stuck: listOwed(pool, true),
    workers: [...pool.workers.values()].map((worker) => describeWorker(store, worker)),
    isMapped: asked && map.firstLacking(asked.index, asked.count, (run) => run.isMapped) === undefined,
  };
}

function findTakers({ workers }: PoolBooks, run: PoolRun): number[] {
  const has = ({ taken }: PoolMember) => run.pages().some((page) => taken.has(page));
  return [...workers.values()].filter(has).map(({ slot }) => slot);
}

function listOwed({ owed, pageSize }: PoolBooks, isStuck: boolean): OwedPage[] {
  const found = owed.values().filter((each) => each.isStuck === isStuck);
  return [
    ...found.take(limits.elasticListed).map(({ page, since, reason }) => ({ page, byteSize: pageSize, since, reason })),
  ];
}

function describeWorker(store: Store, worker: PoolMember): WorkerDescription {
  const { slot, session, client, agreesToMoves, taken, acknowledged, isConnected, pool } = worker;
  return {
    slot,
    session,
    client,
    agreesToMoves,
    takenBytes: taken.size * pool.pageSize,
    takenPages: taken.size,
    acknowledged,
    isConnected,
    overdue: findOverdue(store, worker),
  };
}

/** What it has of runs that began to leave too long ago. */
export function findOverdue(store: Store, { pool, taken }: PoolMember): OverduePages[] {
  const before = store.now() - thresholds.overdueMs;
  const late = [...pool.departures].filter(({ since }) => since <= before).flatMap(({ runs }) => runs);
  const had = late.filter((run) => run.pages().some((page) => taken.has(page)));
  return had.slice(0, limits.elasticListed).map((run) => {
    const { byteOffset, byteSize, since } = run.toLeavingRun([]);
    return { byteOffset, byteSize, since };
  });
}
