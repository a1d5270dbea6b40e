/**
 * The part of `libc.ts` about Unix sockets that keep the borders of messages (SOCK_SEQPACKET) and carry descriptors, which the
 * runtime does not know. Nothing here waits. Of each thread its own: messages are put together in one scratch.
 */

import assert from "node:assert/strict";
import { closeSync } from "node:fs";
import { constants as osConstants } from "node:os";
import { type Address, addressOf, loadLibrary, readInt } from "./ffi.ts";
import { checkDescriptor, failureOf, library, setNonBlocking } from "./libc.ts";

const { EAGAIN, ECONNABORTED, ECONNREFUSED, ECONNRESET, EINTR, ENOENT, EPIPE } = osConstants.errno;
/** Too many descriptors of this user are on their way (<asm-generic/errno.h>); the runtime has no name for it. */
const ETOOMANYREFS = 109;

// socket(2), unix(7), <bits/socket.h>.
const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_SEQPACKET = 5;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const SCM_RIGHTS = 1;
const SHUT_RD = 0;
const SHUT_WR = 1;
const MSG_CTRUNC = 0x8;
const MSG_TRUNC = 0x20;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;
// ioctl_tty(2), <asm-generic/ioctls.h>: what was sent and is not read yet.
const SIOCOUTQ = 0x5411;
/** struct sockaddr_un, <sys/un.h>: sa_family_t family, char path[108]. */
export const unixAddressLayout = { byteSize: 110, family: 0, path: 2 } as const;
/** struct msghdr of 64-bit Linux, <bits/socket.h>. */
export const messageLayout = {
  byteSize: 56,
  parts: 16,
  partCount: 24,
  control: 32,
  controlLength: 40,
  flags: 48,
} as const;
/** struct iovec: void *base, size_t length. */
export const partLayout = { byteSize: 16, base: 0, length: 8 } as const;
/** struct cmsghdr, <bits/socket.h>: size_t len, int level, int type, and the data behind it. */
export const controlLayout = { byteSize: 16, length: 0, level: 8, type: 12 } as const;
/** Most descriptors in a message: SCM_MAX_FD, <net/scm.h>. */
export const messageDescriptors = 253;
/** Longest message that is put together or read here. */
export const messageBytes = 64 * 1024;

let bound: ReturnType<typeof bindUnix> | undefined;

function unix() {
  bound ??= bindUnix();
  return bound;
}

function bindUnix() {
  return loadLibrary("libc.so.6", {
    // int socket(int domain, int type, int protocol);
    socket: { args: ["i32", "i32", "i32"], returns: "i32" },
    // int bind(int fd, const struct sockaddr *address, socklen_t length);
    bind: { args: ["i32", "u64", "u32"], returns: "i32" },
    // int connect(int fd, const struct sockaddr *address, socklen_t length);
    connect: { args: ["i32", "u64", "u32"], returns: "i32" },
    // int listen(int fd, int backlog);
    listen: { args: ["i32", "i32"], returns: "i32" },
    // int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags);
    accept4: { args: ["i32", "u64", "u64", "i32"], returns: "i32" },
    // int getsockopt(int fd, int level, int name, void *value, socklen_t *length);
    getsockopt: { args: ["i32", "i32", "i32", "u64", "u64"], returns: "i32" },
    // int shutdown(int fd, int how);
    shutdown: { args: ["i32", "i32"], returns: "i32" },
    // ssize_t sendmsg(int fd, const struct msghdr *message, int flags);
    sendmsg: { args: ["i32", "u64", "i32"], returns: "i64" },
    // ssize_t recvmsg(int fd, struct msghdr *message, int flags);
    recvmsg: { args: ["i32", "u64", "i32"], returns: "i64" },
    // int ioctl(int fd, unsigned long op, int *value);
    ioctl: { args: ["i32", "u64", "u64"], returns: "i32" },
  });
}

function lastErrno(): number {
  return readInt(library().errno);
}

/** This thread's memory for one message: its head, its one part, its control message and its bytes. Held for good. */
interface Scratch {
  readonly head: Buffer;
  readonly headAddress: Address;
  readonly part: Buffer;
  readonly control: Buffer;
  readonly controlAddress: Address;
  readonly bytes: Buffer;
}

let scratch: Scratch | undefined;

function message(): Scratch {
  if (scratch !== undefined) return scratch;
  const head = Buffer.alloc(messageLayout.byteSize);
  const part = Buffer.alloc(partLayout.byteSize);
  const control = Buffer.alloc(controlLayout.byteSize + 8 * Math.ceil((4 * messageDescriptors) / 8));
  const bytes = Buffer.alloc(messageBytes);
  head.writeBigUInt64LE(addressOf(part), messageLayout.parts);
  head.writeBigUInt64LE(1n, messageLayout.partCount);
  part.writeBigUInt64LE(addressOf(bytes), partLayout.base);
  scratch = { head, headAddress: addressOf(head), part, control, controlAddress: addressOf(control), bytes };
  return scratch;
}

function toAddress(path: string): Buffer {
  const text = Buffer.from(path);
  assert(text.length < unixAddressLayout.byteSize - unixAddressLayout.path, `a socket's path is too long: ${path}`);
  assert(!text.includes(0), "a path has no NUL");
  const address = Buffer.alloc(unixAddressLayout.byteSize);
  address.writeUInt16LE(AF_UNIX, unixAddressLayout.family);
  text.copy(address, unixAddressLayout.path);
  return address;
}

function openSocket(kind = SOCK_SEQPACKET): number {
  const fd = unix().socket(AF_UNIX, kind | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd === -1) throw failureOf("socket", lastErrno());
  return fd;
}

/** Makes a socket file at `path`, by the process's umask, and listens on it. socket(2), bind(2), listen(2). */
export function listenForMessages(path: string, backlog: number): number {
  const address = toAddress(path);
  const fd = openSocket();
  try {
    if (unix().bind(fd, addressOf(address), address.length) !== 0) throw failureOf("bind", lastErrno());
    if (unix().listen(fd, backlog) !== 0) throw failureOf("listen", lastErrno());
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/**
 * Takes over a socket on which another process listened: SO_PEERCRED tells its connections of this process from now on, and nothing waits
 * for them. listen(2), unix(7), fcntl(2).
 */
export function listenAgain(fd: number, backlog: number): void {
  setNonBlocking(fd);
  if (unix().listen(fd, backlog) !== 0) throw failureOf("listen", lastErrno());
}

/** A connection to the socket at `path`, or undefined if nobody listens there. connect(2). */
export function connectForMessages(path: string): number | undefined {
  const address = toAddress(path);
  const fd = openSocket();
  if (unix().connect(fd, addressOf(address), address.length) === 0) return fd;
  const errno = lastErrno();
  closeSync(fd);
  if (errno === ECONNREFUSED || errno === ENOENT) return undefined;
  throw failureOf("connect", errno);
}

/**
 * A socket that sends datagrams to the one at `path`, or undefined if nobody has that. A path that begins with `@` is a name of the abstract
 * namespace, whose length counts. connect(2), unix(7).
 */
export function connectForDatagrams(path: string): number | undefined {
  const address = toAddress(path);
  const isAbstract = path.startsWith("@");
  if (isAbstract) address[unixAddressLayout.path] = 0;
  const byteSize = isAbstract ? unixAddressLayout.path + Buffer.byteLength(path) : address.length;
  const fd = openSocket(SOCK_DGRAM);
  if (unix().connect(fd, addressOf(address), byteSize) === 0) return fd;
  const errno = lastErrno();
  closeSync(fd);
  if (errno === ECONNREFUSED || errno === ENOENT) return undefined;
  throw failureOf("connect", errno);
}

/** The next connection of a listening socket, or undefined if none waits. accept4(2). */
export function acceptConnection(listener: number): number | undefined {
  checkDescriptor(listener);
  const fd = unix().accept4(listener, 0n, 0n, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd !== -1) return fd;
  const errno = lastErrno();
  if (errno === EAGAIN || errno === ECONNABORTED || errno === EINTR) return undefined;
  throw failureOf("accept4", errno);
}

/** Who connected, as the kernel saw it then. `pid` is 0 if that process is in a PID namespace that is not seen from here. */
export interface Peer {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

/** unix(7), SO_PEERCRED; struct ucred: pid_t pid, uid_t uid, gid_t gid. */
export function readPeerCredentials(fd: number): Peer {
  checkDescriptor(fd);
  const value = Buffer.alloc(12);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(value.length);
  const result = unix().getsockopt(fd, SOL_SOCKET, SO_PEERCRED, addressOf(value), addressOf(length));
  if (result !== 0) throw failureOf("getsockopt(SO_PEERCRED)", lastErrno());
  return { pid: value.readInt32LE(0), uid: value.readUInt32LE(4), gid: value.readUInt32LE(8) };
}

/** What became of a message: `full` and nothing was sent, as its peer does not read; `flood` and neither, as others do not. */
export type Sending = "sent" | "full" | "gone" | "flood";

/**
 * Sends one message, whole or not at all, with descriptors that the peer gets copies of. sendmsg(2), unix(7).
 * @param frame its bytes, or its text; at most `messageBytes`.
 */
export function sendMessage(fd: number, frame: string | Uint8Array, descriptors: readonly number[] = []): Sending {
  checkDescriptor(fd);
  assert(descriptors.length <= messageDescriptors, `too many descriptors: ${descriptors.length}`);
  const { head, headAddress, part, control, controlAddress, bytes } = message();
  const byteSize = typeof frame === "string" ? bytes.write(frame) : frame.length;
  const fits = typeof frame === "string" ? byteSize === Buffer.byteLength(frame) : byteSize <= messageBytes;
  assert(fits, "a message is too long");
  if (typeof frame !== "string") bytes.set(frame);
  part.writeBigUInt64LE(BigInt(byteSize), partLayout.length);
  const controlLength = descriptors.length === 0 ? 0 : controlLayout.byteSize + 4 * descriptors.length;
  if (controlLength > 0) {
    control.writeBigUInt64LE(BigInt(controlLength), controlLayout.length);
    control.writeInt32LE(SOL_SOCKET, controlLayout.level);
    control.writeInt32LE(SCM_RIGHTS, controlLayout.type);
    for (const [index, each] of descriptors.entries()) {
      checkDescriptor(each);
      control.writeInt32LE(each, controlLayout.byteSize + 4 * index);
    }
  }
  head.writeBigUInt64LE(controlLength === 0 ? 0n : controlAddress, messageLayout.control);
  head.writeBigUInt64LE(BigInt(controlLength), messageLayout.controlLength);
  const result = unix().sendmsg(fd, headAddress, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (result !== -1n) return "sent";
  const errno = lastErrno();
  if (errno === EAGAIN) return "full";
  if (errno === EPIPE || errno === ECONNRESET) return "gone";
  if (errno === ETOOMANYREFS) return "flood";
  throw failureOf("sendmsg", errno);
}

export interface Message {
  /** Of this thread's scratch: good until the next message is read or sent. Empty at the connection's end, too. */
  readonly bytes: Buffer;
  /** It was longer, and the rest of it is lost. */
  readonly isCut: boolean;
  /** The caller's to close. */
  readonly descriptors: readonly number[];
  /** More descriptors came than were taken; the kernel has closed those. */
  readonly isShort: boolean;
}

/**
 * Reads one message. recvmsg(2).
 * @param most how many descriptors are taken; with 0 none is ever opened here.
 * @returns undefined if none is there, `gone` if the connection was reset.
 */
export function receiveMessage(fd: number, most = 0): Message | "gone" | undefined {
  checkDescriptor(fd);
  assert(most <= messageDescriptors, `too many descriptors: ${most}`);
  const { head, headAddress, part, control, controlAddress, bytes } = message();
  part.writeBigUInt64LE(BigInt(messageBytes), partLayout.length);
  const controlLength = most === 0 ? 0 : controlLayout.byteSize + 8 * Math.ceil((4 * most) / 8);
  head.writeBigUInt64LE(most === 0 ? 0n : controlAddress, messageLayout.control);
  head.writeBigUInt64LE(BigInt(controlLength), messageLayout.controlLength);
  head.writeInt32LE(0, messageLayout.flags);
  const result = unix().recvmsg(fd, headAddress, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (result === -1n) {
    const errno = lastErrno();
    if (errno === EAGAIN || errno === EINTR) return undefined;
    if (errno === ECONNRESET) return "gone";
    throw failureOf("recvmsg", errno);
  }
  const flags = head.readInt32LE(messageLayout.flags);
  return {
    bytes: bytes.subarray(0, Number(result)),
    isCut: (flags & MSG_TRUNC) !== 0,
    isShort: (flags & MSG_CTRUNC) !== 0,
    descriptors: readDescriptors(control, Number(head.readBigUInt64LE(messageLayout.controlLength))),
  };
}

function readDescriptors(control: Buffer, controlLength: number): number[] {
  if (controlLength < controlLayout.byteSize) return [];
  const isRights =
    control.readInt32LE(controlLayout.level) === SOL_SOCKET && control.readInt32LE(controlLayout.type) === SCM_RIGHTS;
  if (!isRights) return [];
  const count = (Number(control.readBigUInt64LE(controlLayout.length)) - controlLayout.byteSize) / 4;
  return Array.from({ length: count }, (_, index) => control.readInt32LE(controlLayout.byteSize + 4 * index));
}

/** Bytes, with what the kernel needs around them, that the peer of a Unix connection has not read yet. SIOCOUTQ. */
export function readUnread(fd: number): number {
  checkDescriptor(fd);
  const value = Buffer.alloc(4);
  if (unix().ioctl(fd, BigInt(SIOCOUTQ), addressOf(value)) !== 0) throw failureOf("ioctl(SIOCOUTQ)", lastErrno());
  return value.readInt32LE(0);
}

/**
 * Ends one direction of a connection: nothing more can be sent by the peer, or by this end; what was sent can be read. shutdown(2).
 * Of a connection whose peer is gone there is nothing to end.
 */
export function endOneWay(fd: number, direction: "receiving" | "sending"): void {
  checkDescriptor(fd);
  unix().shutdown(fd, direction === "receiving" ? SHUT_RD : SHUT_WR);
}
