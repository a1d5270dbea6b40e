/**
 * Leases: read locks of an open file description at two bytes far past any content (docs/protocol.md). A lease is taken
 * here and never given back: it ends when the last mapping of the description does, however that happens.
 */

import { F_OFD_SETLK, fcntl } from "./libc.ts";

const leaseByte = 1n << 62n;
const writerByte = (1n << 62n) + (1n << 61n);

/** Marks the file of `fd` as mapped. @throws SystemError; `EAGAIN` if somebody write-locks the lease byte */
export function takeLease(fd: number): void {
  takeReadLock(fd, leaseByte);
}

/** Marks the file of `fd` as mapped for writing. @throws SystemError */
export function takeWriterLease(fd: number): void {
  takeReadLock(fd, writerByte);
}

function takeReadLock(fd: number, start: bigint): void {
  // struct flock of 64-bit Linux, <bits/fcntl.h>: l_type F_RDLCK and l_whence SEEK_SET are both 0, and so is l_pid.
  const flock = Buffer.alloc(32);
  flock.writeBigInt64LE(start, 8);
  flock.writeBigInt64LE(1n, 16);
  fcntl(fd, F_OFD_SETLK, flock);
}
