/** The books against what the file system says. */

import { states } from "../journal/region-record.ts";
import { hostPool } from "../naming.ts";
import type { Pool } from "./pool.ts";
import { noCounts, type StateCounts } from "./region.ts";
import type { Store } from "./store.ts";

/** A pool of the server's, beside what the machine says. */
export interface ServerPool extends Pick<Pool, "name" | "limitBytes" | "usedBytes" | "drainingBytes"> {
  /** What may still be allocated, by the limit and what is free. */
  readonly availableBytes: number;
  /** Kept ready for regions to come, and counted as available. */
  readonly reserveBytes: number;
  /** In use there, and not by this instance; null of a device, of which nobody tells without a context there. */
  readonly unaccountedBytes: number | null;
}

/** What the pool's regions take outside of that file system. */
function elsewhereOf({ storages }: Store, { name }: Pool): number {
  const ofPool = [...storages.all].filter(({ memory }) => memory.pool === name);
  return ofPool.reduce((sum, { memory }) => sum + memory.elsewhereBytes, 0);
}

/** What somebody may see who may not see all. */
export interface Seen {
  /** null: all. */
  readonly models: ReadonlySet<string> | null;
  isOwn(theirs: { readonly createdBy: string | null }): boolean;
}

/**
 * Counts and sums as of now; a few system calls, whatever the number of regions.
 * @param seen counts what that sees alone; undefined: all. What is left of the server's memory is everybody's to know.
 */
export function readStats(store: Store, seen?: Seen) {
  const { books, storages, reserve, journal, proofs } = store;
  const space = storages.get("shm").memory.space();
  const journalBytes = journal.byteSize() + proofs.byteSize();
  return {
    pools: [...books.pools.all].map((pool): ServerPool => {
      if (pool.name !== hostPool) {
        // On a device of which nobody knows how large it is nothing can be made now.
        const availableBytes = pool.limitBytes === null ? 0 : pool.freeBytes;
        return { ...pool, availableBytes, reserveBytes: 0, unaccountedBytes: null };
      }
      // Host memory's file system is the journal's, too.
      const ownBytes = pool.takenBytes - elsewhereOf(store, pool) + reserve.bytes + journalBytes;
      const availableBytes = Math.min(pool.freeBytes, space.freeBytes + reserve.bytes);
      return { ...pool, availableBytes, reserveBytes: reserve.bytes, unaccountedBytes: space.usedBytes - ownBytes };
    }),
    journalBytes,
    inodes: { used: space.usedInodes, free: space.freeInodes },
    ...(seen === undefined ? countAll(store) : countSeen(store, seen)),
  };
}

function countAll({ books, claims, requestedLeases }: Store) {
  return {
    regions: toLiving(books.counts),
    models: books.models.size,
    sessions: books.sessions.size,
    claims: claims.size,
    leases: requestedLeases.size,
  };
}

function countSeen({ books, requestedLeases }: Store, { models, isOwn }: Seen) {
  const seenModels = [...books.models.values()].filter(({ name }) => models === null || models.has(name));
  const sum = noCounts();
  for (const { counts } of seenModels) for (const state of states) sum[state] += counts[state];
  const sessions = [...books.sessions.after(0)].filter(isOwn);
  return {
    regions: toLiving(sum),
    models: seenModels.length,
    sessions: sessions.length,
    claims: sessions.reduce((count, { claims }) => count + claims.size, 0),
    leases: [...requestedLeases.all()].filter(isOwn).length,
  };
}

function toLiving({ creating, open, sealing, sealed, draining }: StateCounts) {
  return { creating, open, sealing, sealed, draining };
}
