/**
 * Leases: read locks of an open file description at three bytes far past any content (docs/protocol.md). A lease of what is
 * mapped is never given back: it ends when the last mapping of the description does, however that happens.
 */

import { setFlock, setLock, toFlock } from "./lock.ts";

const leaseByte = 1n << 62n;
const makerByte = leaseByte + 1n;
const writerByte = (1n << 62n) + (1n << 61n);

/**
 * As what a process maps a region: `consumer`, it did not make it; `maker`, it made it, and is none of those for whom it is
 * made; `builder`, it made it, and uses it like the others.
 */
export type Role = "consumer" | "maker" | "builder";

/** What each of them locks, laid out once, since every attach does it. */
const flocks = {
  consumer: toFlock("read", leaseByte, 1n),
  maker: toFlock("read", makerByte, 1n),
  builder: toFlock("read", leaseByte, 2n),
} as const satisfies Record<Role, Buffer>;

/** Marks the file of `fd` as mapped. @throws SystemError; `EAGAIN` if somebody write-locks the byte */
export function takeLease(fd: number, role: Role): void {
  setFlock(fd, flocks[role]);
}

/** Marks the file of `fd` as mapped for writing. @throws SystemError */
export function takeWriterLease(fd: number): void {
  setLock(fd, "read", writerByte, 1n);
}

/** Gives up what came leased and will not be mapped: a description that is wanted for its locks. @throws SystemError */
export function giveUpLease(fd: number): void {
  setLock(fd, "none", leaseByte, 2n);
  setLock(fd, "none", writerByte, 1n);
}
