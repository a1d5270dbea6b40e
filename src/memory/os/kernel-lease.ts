/**
 * Leases as the kernel keeps them: read locks of open file descriptions at three fixed bytes far past any content. The
 * server only asks; a lease begins with a client's lock and ends with its last mapping. `docs/protocol.md` specifies it.
 */

import { findLock, isLocked } from "./libc.ts";

/** Locked by whoever maps the region, but for its maker. */
export const leaseByte = 2n ** 62n;
/** Locked by who made the region and maps it since, in place of the lease byte. */
export const makerByte = leaseByte + 1n;
/** Locked as well by whoever maps it for writing. */
export const writerByte = 2n ** 62n + 2n ** 61n;

/** What the locks of a region's file say. */
export interface Locks {
  /** Whether any process maps it, its maker among them. */
  readonly leased: boolean;
  /** Whether any process but its maker maps it. */
  readonly consumed: boolean;
  /** Whether its maker maps it. */
  readonly made: boolean;
  /** Whether a write lock keeps leases out. Only who opened the file read-write can hold one. */
  readonly barred: boolean;
  /** Whether any process maps it for writing. */
  readonly written: boolean;
}

/** Asks for the locks of the region open at `fd`. 1 µs; takes nothing, disturbs nobody. */
export function askLocks(fd: number): Locks {
  const lease = findLock(fd, leaseByte, 1n);
  const made = isLocked(fd, makerByte, 1n);
  return {
    leased: lease !== undefined || made,
    consumed: lease === "read",
    made,
    // A write lock excludes every other: the first that is found is the only one.
    barred: lease === "write",
    written: isLocked(fd, writerByte, 1n),
  };
}
