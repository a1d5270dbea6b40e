/** The books against what the file system says. */

import type { Pool } from "./pool.ts";
import type { Store } from "./store.ts";

/** A pool of the server's, beside what the machine says. */
export interface ServerPool extends Pick<Pool, "name" | "limitBytes" | "usedBytes" | "drainingBytes"> {
  /** What may still be allocated, by the limit and what is free. */
  readonly availableBytes: number;
  /** In use there, and not by this instance. */
  readonly unaccountedBytes: number;
}

/** What the pool's regions take outside of that file system. */
function elsewhereOf({ storages }: Store, { name }: Pool): number {
  const ofPool = [...storages.all].filter(({ memory }) => memory.pool === name);
  return ofPool.reduce((sum, { memory }) => sum + memory.elsewhereBytes, 0);
}

/** Counts and sums as of now; a few system calls, whatever the number of regions. */
export function readStats(store: Store) {
  const { books, storages, journal, proofs } = store;
  const space = storages.get("shm").memory.space();
  const journalBytes = journal.byteSize() + proofs.byteSize();
  const { creating, open, sealing, sealed, draining: drainingRegions } = books.counts;
  return {
    pools: [...books.pools.all].map((pool) => ({
      ...pool,
      availableBytes: Math.min(pool.freeBytes, space.freeBytes),
      // Of host memory, whose file system the journal shares.
      unaccountedBytes: space.usedBytes - (pool.takenBytes - elsewhereOf(store, pool)) - journalBytes,
    })),
    journalBytes,
    inodes: { used: space.usedInodes, free: space.freeInodes },
    regions: { creating, open, sealing, sealed, draining: drainingRegions },
    models: books.models.size,
    sessions: books.sessions.size,
    claims: store.claims.size,
    leases: store.requestedLeases.size,
  };
}
