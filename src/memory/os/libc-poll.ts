/** The part of `libc.ts` about waiting for many descriptors at once, in a thread that does nothing else. */

import { constants as osConstants } from "node:os";
import { type Address, addressOf, loadLibrary, readInt } from "./ffi.ts";
import { checkDescriptor, failureOf, library } from "./libc.ts";
import { eventLayout } from "./libc-sockets.ts";

// pipe(2), epoll_create1(2), epoll_ctl(2).
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;

/** What a poll tells of a descriptor. epoll_ctl(2), <sys/epoll.h>; the last two come unasked. */
export const pollEvents = { readable: 0x1, writable: 0x4, peerEnded: 0x2000, failed: 0x8, over: 0x10 } as const;

let bound: ReturnType<typeof bindPoll> | undefined;

function poll() {
  bound ??= bindPoll();
  return bound;
}

function bindPoll() {
  return loadLibrary("libc.so.6", {
    // int pipe2(int fds[2], int flags);
    pipe2: { args: ["u64", "i32"], returns: "i32" },
    // int epoll_create1(int flags);
    epoll_create1: { args: ["i32"], returns: "i32" },
    // int epoll_ctl(int epoll, int op, int fd, struct epoll_event *event);
    epoll_ctl: { args: ["i32", "i32", "i32", "u64"], returns: "i32" },
    // int epoll_wait(int epoll, struct epoll_event *events, int count, int timeout);
    epoll_wait: { args: ["i32", "u64", "i32", "i32"], returns: "i32" },
  });
}

function lastErrno(): number {
  return readInt(library().errno);
}

/** A pipe of which no end waits. pipe2(2). */
export function createPipe(): { readonly readEnd: number; readonly writeEnd: number } {
  const fds = Buffer.alloc(8);
  if (poll().pipe2(addressOf(fds), O_NONBLOCK | O_CLOEXEC) !== 0) throw failureOf("pipe2", lastErrno());
  return { readEnd: fds.readInt32LE(0), writeEnd: fds.readInt32LE(4) };
}

/** epoll_create1(2). */
export function createPoll(): number {
  const fd = poll().epoll_create1(O_CLOEXEC);
  if (fd === -1) throw failureOf("epoll_create1", lastErrno());
  return fd;
}

/** `data` comes back with each event of `fd`. epoll_ctl(2), EPOLL_CTL_ADD; `setPollEvents` changes it. */
export function addToPoll(epoll: number, fd: number, events: number, data: number): void {
  checkDescriptor(epoll);
  checkDescriptor(fd);
  const event = Buffer.alloc(eventLayout.byteSize);
  event.writeUInt32LE(events, 0);
  event.writeBigUInt64LE(BigInt(data), eventLayout.data);
  if (poll().epoll_ctl(epoll, EPOLL_CTL_ADD, fd, addressOf(event)) !== 0) throw failureOf("epoll_ctl", lastErrno());
}

/** epoll_ctl(2), EPOLL_CTL_DEL. */
export function removeFromPoll(epoll: number, fd: number): void {
  checkDescriptor(epoll);
  checkDescriptor(fd);
  if (poll().epoll_ctl(epoll, EPOLL_CTL_DEL, fd, 0n) !== 0) throw failureOf("epoll_ctl", lastErrno());
}

/** Memory for so many events of a poll. */
export class PollReport {
  readonly #memory: Buffer;
  readonly #address: Address;
  #count = 0;

  constructor(most: number) {
    this.#memory = Buffer.alloc(most * eventLayout.byteSize);
    this.#address = addressOf(this.#memory);
  }

  /** Blocks this thread until something happens, or `timeoutMs` are over; -1 waits for ever. epoll_wait(2). */
  wait(epoll: number, timeoutMs: number): void {
    checkDescriptor(epoll);
    const most = this.#memory.length / eventLayout.byteSize;
    this.#count = poll().epoll_wait(epoll, this.#address, most, timeoutMs);
    if (this.#count !== -1) return;
    this.#count = 0;
    const errno = lastErrno();
    if (errno !== osConstants.errno.EINTR) throw failureOf("epoll_wait", errno);
  }

  *[Symbol.iterator](): Generator<{ readonly events: number; readonly data: number }> {
    for (let index = 0; index < this.#count; index++) {
      const at = index * eventLayout.byteSize;
      const data = Number(this.#memory.readBigUInt64LE(at + eventLayout.data));
      yield { events: this.#memory.readUInt32LE(at), data };
    }
  }
}
