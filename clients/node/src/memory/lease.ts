/**
 * Leases: read locks of an open file description at two bytes far past any content (docs/protocol.md). A lease is taken
 * here and never given back: it ends when the last mapping of the description does, however that happens.
 */

import { setLock } from "./lock.ts";

const leaseByte = 1n << 62n;
const writerByte = (1n << 62n) + (1n << 61n);

/** Marks the file of `fd` as mapped. @throws SystemError; `EAGAIN` if somebody write-locks the lease byte */
export function takeLease(fd: number): void {
  setLock(fd, "read", leaseByte, 1n);
}

/** Marks the file of `fd` as mapped for writing. @throws SystemError */
export function takeWriterLease(fd: number): void {
  setLock(fd, "read", writerByte, 1n);
}
