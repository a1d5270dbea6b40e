/**
 * The part of `libc.ts` about Unix sockets that keep the borders of messages (SOCK_SEQPACKET) and carry descriptors. Nothing
 * here waits but `waitFor`, for as long as it is told. Of each thread its own: messages are put together in one scratch.
 */

import { library, MAP_ANONYMOUS, MAP_PRIVATE, mmap, PROT_READ, PROT_WRITE, SystemError, viewAt } from "./libc.ts";
import { unmapAtThreadEnd } from "./thread-end.ts";

// socket(2), unix(7), <bits/socket.h>.
const AF_UNIX = 1;
const SOCK_SEQPACKET = 5;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_CTRUNC = 0x8;
const MSG_TRUNC = 0x20;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;
// poll(2).
const events = { reading: 1, writing: 4 } as const;

/** Longest message, either way. */
export const messageBytes = 65_536;
/** Takes every descriptor that a message may carry (SCM_MAX_FD is 253). */
const controlBytes = 1024;
/** Where the parts of a message are in the scratch: struct msghdr of 56 bytes, struct iovec of 16, control message, bytes. */
const at = { head: 0, part: 64, control: 128, bytes: 4096 } as const;
/** In struct msghdr: iov, iovlen, control, controllen, flags. */
const headAt = { part: 16, partCount: 24, control: 32, controlLength: 40, flags: 48 } as const;
/** struct cmsghdr: size_t len, int level, int type; the descriptors are behind it. */
const cmsgBytes = 16;
const scratchBytes = at.bytes + messageBytes;

interface Scratch {
  readonly address: bigint;
  readonly bytes: Buffer;
}

let scratch: Scratch | undefined;

/** This thread's memory for one message, which no collector moves. Held until the thread ends. */
function theScratch(): Scratch {
  if (scratch !== undefined) return scratch;
  const address = mmap(0n, scratchBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  unmapAtThreadEnd(address, scratchBytes);
  const bytes = Buffer.from(viewAt(address, scratchBytes));
  bytes.writeBigUInt64LE(address + BigInt(at.part), at.head + headAt.part);
  bytes.writeBigUInt64LE(1n, at.head + headAt.partCount);
  bytes.writeBigUInt64LE(address + BigInt(at.bytes), at.part);
  scratch = { address, bytes };
  return scratch;
}

/** Puts the head together for a message of so many bytes. */
function address(length: number, controlLength: number): bigint {
  const { address: start, bytes } = theScratch();
  bytes.writeBigUInt64LE(BigInt(length), at.part + 8);
  bytes.writeBigUInt64LE(controlLength === 0 ? 0n : start + BigInt(at.control), at.head + headAt.control);
  bytes.writeBigUInt64LE(BigInt(controlLength), at.head + headAt.controlLength);
  bytes.writeInt32LE(0, at.head + headAt.flags);
  return start;
}

/** socket(2): one that keeps the borders of messages, and waits for nothing. @throws SystemError */
export function openMessageSocket(): number {
  const fd = Number(library().socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (fd === -1) throw new SystemError("socket", library().koffi.errno());
  return fd;
}

/** connect(2) to the Unix socket at `path`, of at most 107 bytes. @throws SystemError; `EAGAIN` if too many wait there */
export function connectTo(fd: number, path: string): void {
  const text = Buffer.from(path);
  // struct sockaddr_un, <sys/un.h>: sa_family_t family, char path[108].
  const socket = Buffer.alloc(110);
  socket.writeUInt16LE(AF_UNIX, 0);
  text.copy(socket, 2);
  if (library().connect(fd, socket, socket.length) !== 0) throw new SystemError("connect", library().koffi.errno());
}

/** poll(2), for at most so many whole milliseconds. @returns whether there is something to read, or room to write, or an end */
export function waitFor(fd: number, what: keyof typeof events, timeoutMs: number): boolean {
  // struct pollfd: int fd, short events, short revents.
  const asked = Buffer.alloc(8);
  asked.writeInt32LE(fd, 0);
  asked.writeInt16LE(events[what], 4);
  return Number(library().poll(asked, 1, timeoutMs)) > 0;
}

/** sendmsg(2) of one message. @returns false if there is no room for it now. @throws SystemError */
export function sendMessage(fd: number, text: string): boolean {
  const { bytes } = theScratch();
  const length = Buffer.byteLength(text);
  if (length > messageBytes) throw new RangeError(`a message of ${length} bytes`);
  bytes.write(text, at.bytes);
  return Number(retried("sendmsg", () => library().sendmsg(fd, address(length, 0), MSG_NOSIGNAL)) ?? -1) >= 0;
}

/** A message, and the descriptors that came with it, which are the caller's to close with `closeDescriptor`. */
export interface Message {
  /** Empty at the end of the connection. */
  readonly text: string;
  readonly descriptors: readonly number[];
  /** It was longer than any may be. */
  readonly isCut: boolean;
  /** Not all of its descriptors came: this process has none left. */
  readonly isShort: boolean;
}

/** recvmsg(2). @returns undefined if there is none now. @throws SystemError */
export function receiveMessage(fd: number): Message | undefined {
  const { bytes } = theScratch();
  const length = retried("recvmsg", () => library().recvmsg(fd, address(messageBytes, controlBytes), MSG_CMSG_CLOEXEC));
  if (length === undefined) return undefined;
  const flags = bytes.readInt32LE(at.head + headAt.flags);
  const controlLength = Number(bytes.readBigUInt64LE(at.head + headAt.controlLength));
  return {
    text: bytes.toString("utf8", at.bytes, at.bytes + length),
    descriptors: readDescriptors(bytes.subarray(at.control, at.control + controlLength)),
    isCut: (flags & MSG_TRUNC) !== 0,
    isShort: (flags & MSG_CTRUNC) !== 0,
  };
}

function readDescriptors(control: Buffer): number[] {
  if (control.length < cmsgBytes) return [];
  const length = Number(control.readBigUInt64LE(0));
  if (control.readInt32LE(8) !== SOL_SOCKET || control.readInt32LE(12) !== SCM_RIGHTS) return [];
  const count = Math.floor((Math.min(length, control.length) - cmsgBytes) / 4);
  return Array.from({ length: count }, (_, index) => control.readInt32LE(cmsgBytes + 4 * index));
}

/** What a call that does not wait says, or undefined if it would have to; again if a signal came. @throws SystemError */
function retried(name: string, call: () => number | bigint): number | undefined {
  for (;;) {
    const result = Number(call());
    if (result >= 0) return result;
    const { koffi } = library();
    const errno = koffi.errno();
    if (errno === koffi.os.errno.EAGAIN) return undefined;
    if (errno !== koffi.os.errno.EINTR) throw new SystemError(name, errno);
  }
}

/**
 * close(2) of what was opened by the functions of this file. By Node's own, a thread would be warned of a descriptor that Node
 * did not open.
 */
export function closeDescriptor(fd: number): void {
  library().close(fd);
}
