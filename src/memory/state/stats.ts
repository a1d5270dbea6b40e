/** The books against what the file system says. */

import type { Store } from "./store.ts";

/** Counts and sums as of now; a few system calls, whatever the number of regions. */
export function readStats(store: Store) {
  const { books, storage, journal } = store;
  const room = storage.room();
  const storeBytes = journal.byteSize();
  const { usedBytes: used, drainingBytes: draining, limitBytes: limit } = books;
  const { creating, open, sealing, sealed, draining: drainingRegions } = books.counts;
  return {
    storeBytes,
    bytes: {
      limit,
      used,
      draining,
      available: Math.min(books.availableBytes, room.freeBytes),
      unaccounted: room.usedBytes - used - draining - storeBytes,
    },
    inodes: { used: room.usedInodes, free: room.freeInodes },
    regions: { creating, open, sealing, sealed, draining: drainingRegions },
    models: books.models.size,
    sessions: books.sessions.size,
    claims: store.claims.size,
    leases: store.leases.size,
  };
}
