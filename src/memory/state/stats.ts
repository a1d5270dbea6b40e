/** The books against what the file system says. */

import type { Store } from "./store.ts";

/** Counts and sums as of now; a few system calls, whatever the number of regions. */
export function readStats(store: Store) {
  const { books, storages, journal } = store;
  const space = storages.get("shm").memory.space();
  const journalBytes = journal.byteSize();
  const { usedBytes: used, drainingBytes: draining, limitBytes: limit } = books;
  const { creating, open, sealing, sealed, draining: drainingRegions } = books.counts;
  return {
    journalBytes,
    bytes: {
      limit,
      used,
      draining,
      available: Math.min(books.availableBytes, space.freeBytes),
      unaccounted: space.usedBytes - used - draining - journalBytes,
    },
    inodes: { used: space.usedInodes, free: space.freeInodes },
    regions: { creating, open, sealing, sealed, draining: drainingRegions },
    models: books.models.size,
    sessions: books.sessions.size,
    claims: store.claims.size,
    leases: store.leases.size,
  };
}
