/**
 * One checked, typed function for each C library call that `node:fs` cannot make. No policy: each checks its arguments,
 * calls, reads errno in the next statement and throws `SystemError`.
 */

import assert from "node:assert/strict";
import { constants as osConstants } from "node:os";
import { SystemError } from "./error.ts";
import { type Address, addressOf, loadLibrary, readInt } from "./ffi.ts";

const maxOffset = 2n ** 63n - 1n;

// fcntl(2), <bits/fcntl-linux.h>: open-file-description locks.
const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const F_RDLCK = 0;
const F_WRLCK = 1;
const F_UNLCK = 2;
const SEEK_SET = 0;

/** struct flock of 64-bit Linux, <bits/fcntl.h>: short type, short whence, off_t start, off_t len, pid_t pid. */
export const flockLayout = { byteSize: 32, type: 0, whence: 2, start: 8, length: 16, pid: 24 } as const;

type LibraryOfC = ReturnType<typeof bindLibrary>;
let bound: LibraryOfC | undefined;

/** Binds once in each thread: errno's place differs from thread to thread. */
function library(): LibraryOfC {
  bound ??= bindLibrary();
  return bound;
}

function bindLibrary() {
  const symbols = loadLibrary("libc.so.6", {
    // int *__errno_location(void);
    __errno_location: { args: [], returns: "u64" },
    // int fallocate(int fd, int mode, off_t offset, off_t len);
    fallocate: { args: ["i32", "i32", "i64", "i64"], returns: "i32" },
    // int fcntl(int fd, int op, struct flock *lock);
    fcntl: { args: ["i32", "i32", "u64"], returns: "i32" },
  });
  return { symbols, errno: symbols.__errno_location() as Address };
}

const errnoNames = new Map(Object.entries(osConstants.errno).map(([name, value]) => [value, name]));

function failureOf(call: string, errno: number): SystemError {
  return new SystemError(call, errno, errnoNames.get(errno) ?? `errno ${errno}`);
}

function checkDescriptor(fd: number): void {
  assert(Number.isInteger(fd) && fd >= 0 && fd < 2 ** 31, `not a file descriptor: ${fd}`);
}

function toOffset(value: number | bigint): bigint {
  const offset = BigInt(value);
  assert(offset >= 0n && offset <= maxOffset, `not a file offset: ${offset}`);
  return offset;
}

/**
 * Allocates the pages of `[byteOffset, byteOffset + byteSize)` and grows the file to their end. tmpfs does not zero them
 * yet, but a full file system is reported here (ENOSPC) instead of by SIGBUS at first touch. fallocate(2).
 */
export function fallocate(fd: number, byteOffset: number, byteSize: number): void {
  checkDescriptor(fd);
  assert(byteSize > 0, "fallocate takes at least one byte");
  const c = library();
  const result = c.symbols.fallocate(fd, 0, toOffset(byteOffset), toOffset(byteSize));
  if (result !== 0) throw failureOf("fallocate", readInt(c.errno));
}

function flock(type: number, start: bigint, length: bigint): Buffer {
  const lock = Buffer.alloc(flockLayout.byteSize);
  lock.writeInt16LE(type, flockLayout.type);
  lock.writeInt16LE(SEEK_SET, flockLayout.whence);
  lock.writeBigInt64LE(toOffset(start), flockLayout.start);
  lock.writeBigInt64LE(toOffset(length), flockLayout.length);
  return lock;
}

/**
 * Whether another open file description holds a lock on the range that would keep a write lock out. Takes nothing and
 * works on an `O_RDONLY` descriptor; the kernel never says who it is. fcntl(2), F_OFD_GETLK.
 */
export function isLocked(fd: number, start: bigint, length: bigint): boolean {
  checkDescriptor(fd);
  const c = library();
  const lock = flock(F_WRLCK, start, length);
  const result = c.symbols.fcntl(fd, F_OFD_GETLK, addressOf(lock));
  if (result === -1) throw failureOf("fcntl(F_OFD_GETLK)", readInt(c.errno));
  return lock.readInt16LE(flockLayout.type) !== F_UNLCK;
}

/** Takes a lock on the whole of `fd`'s file for its open file description; false if another one holds one. fcntl(2). */
export function tryLockFile(fd: number): boolean {
  return trySetLock(fd, F_WRLCK, 0n, 0n);
}

/** Takes a read lock on a range for `fd`'s open file description, as a client's lease is; false if it is kept out. */
export function tryReadLock(fd: number, start: bigint, length: bigint): boolean {
  return trySetLock(fd, F_RDLCK, start, length);
}

function trySetLock(fd: number, type: number, start: bigint, length: bigint): boolean {
  checkDescriptor(fd);
  const c = library();
  const lock = flock(type, start, length);
  const result = c.symbols.fcntl(fd, F_OFD_SETLK, addressOf(lock));
  if (result !== -1) return true;
  const errno = readInt(c.errno);
  if (errno === osConstants.errno.EAGAIN || errno === osConstants.errno.EACCES) return false;
  throw failureOf("fcntl(F_OFD_SETLK)", errno);
}
