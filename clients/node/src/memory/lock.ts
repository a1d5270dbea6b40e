/**
 * Open-file-description locks on ranges of bytes (docs/protocol.md, "Read-write locks"). They belong to the open file of a
 * descriptor: two descriptors that were opened apart exclude each other, in one process too. Nothing here waits in the
 * kernel, where a thread could not be called back.
 */

import { TensordError } from "../errors.ts";
import type { LockOptions } from "../options.ts";
import { deadlineAfter, pause } from "../waiting.ts";
import { F_OFD_GETLK, F_OFD_SETLK, fcntl, tryFcntl } from "./libc.ts";

// l_type of struct flock, <fcntl.h>.
const lockTypes = { read: 0, write: 1, none: 2 } as const;

/** A lock is retried after so long: long enough to cost nothing, short enough that nobody waits for it. */
const firstPauseMs = 1;
const longestPauseMs = 16;

/**
 * Takes or gives up a lock on `length` bytes from `start`; a length of 0 would mean "to infinity".
 * @throws SystemError; `EAGAIN` if somebody else's lock is in the way
 */
export function setLock(fd: number, type: keyof typeof lockTypes, start: bigint, length: bigint): void {
  setFlock(fd, toFlock(type, start, length));
}

/** As `setLock`, of what `toFlock` has made, which it does not change. @throws SystemError */
export function setFlock(fd: number, flock: Buffer): void {
  fcntl(fd, F_OFD_SETLK, flock);
}

/** As `setLock`. @returns false if somebody else's lock is in the way */
export function trySetLock(fd: number, type: "read" | "write", start: bigint, length: bigint): boolean {
  return tryFlock(fd, toFlock(type, start, length));
}

/** What `tryFlock` takes, for who takes the same lock again and again. */
export function toFlock(type: keyof typeof lockTypes, start: bigint, length: bigint): Buffer {
  // struct flock of 64-bit Linux, <bits/fcntl.h>; l_whence SEEK_SET and l_pid are 0.
  const flock = Buffer.alloc(32);
  flock.writeInt16LE(lockTypes[type], 0);
  flock.writeBigInt64LE(start, 8);
  flock.writeBigInt64LE(length, 16);
  return flock;
}

/** As `trySetLock`. @throws SystemError */
export function tryFlock(fd: number, flock: Buffer): boolean {
  return tryFcntl(fd, F_OFD_SETLK, flock);
}

/** Whether anybody else has a lock there. Takes none. @throws SystemError */
export function isLockedElsewhere(fd: number, start: bigint, length: bigint): boolean {
  const flock = toFlock("write", start, length);
  fcntl(fd, F_OFD_GETLK, flock);
  return flock.readInt16LE(0) !== lockTypes.none;
}

/**
 * Tries until `attempt` returns something, without an end if `timeoutMs` is undefined.
 * @throws TensordError `deadline-exceeded`, what `attempt` throws, the signal's reason
 */
export async function retryWithin<Result>(
  { timeoutMs, signal }: LockOptions,
  action: string,
  attempt: () => Result | undefined,
): Promise<Result> {
  const deadline = deadlineAfter(timeoutMs ?? Number.POSITIVE_INFINITY);
  for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(2 * pauseMs, longestPauseMs)) {
    signal?.throwIfAborted();
    const result = attempt();
    if (result !== undefined) return result;
    const leftMs = deadline - performance.now();
    if (leftMs <= 0) {
      throw new TensordError(
        "deadline-exceeded",
        `Cannot ${action}: it is locked after ${timeoutMs} ms, want it free`,
        {
          hint: "wait longer, or look for who holds it: a killed process holds nothing",
        },
      );
    }
    await pause(Math.min(pauseMs, leftMs), { signal });
  }
}
