/**
 * Leases as the kernel keeps them: read locks of open file descriptions at three fixed bytes far past any content. The
 * server only asks; a lease begins with a client's lock and ends with its last mapping. `docs/protocol.md` specifies it.
 */

import { findLock, isLocked, tryReadLock } from "./libc.ts";

/** Locked by whoever maps the region, but for its maker. */
export const leaseByte = 2n ** 62n;
/** Locked by who made the region and maps it since, in place of the lease byte. */
export const makerByte = leaseByte + 1n;
/** Locked as well by whoever maps it for writing. */
export const writerByte = 2n ** 62n + 2n ** 61n;

/** As whom somebody maps a region, and by which bytes that is seen. `both` is a maker who uses it like the others. */
export const leaseKinds = ["consumer", "maker", "both"] as const;
export type LeaseKind = (typeof leaseKinds)[number];

const leasedBytes: Readonly<Record<LeaseKind, readonly [start: bigint, length: bigint]>> = {
  consumer: [leaseByte, 1n],
  maker: [makerByte, 1n],
  both: [leaseByte, 2n],
};

/**
 * Leases the region open at `fd` for its open file description, as a client does.
 * @returns false if a write lock of somebody keeps it out; what it got then goes with the descriptor.
 */
export function tryLease(fd: number, kind: LeaseKind, isWriter: boolean): boolean {
  const [start, length] = leasedBytes[kind];
  const isLeased = tryReadLock(fd, start, length);
  return isWriter ? tryReadLock(fd, writerByte, 1n) && isLeased : isLeased;
}

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
