/**
 * The part of `libc.ts` about packets: Unix sockets whose messages keep their bounds and may carry descriptors. Every
 * descriptor made here closes on exec, and nothing here waits but `waitForInput`.
 */

import assert from "node:assert/strict";
import { closeSync } from "node:fs";
import { constants as osConstants } from "node:os";
import { type Address, addressOf, loadLibrary, readInt } from "./ffi.ts";
import { checkDescriptor, failureOf } from "./libc.ts";

const { EAGAIN, EINTR } = osConstants.errno;

// socket(2), <bits/socket.h>, <bits/socket_type.h>.
const AF_UNIX = 1;
const SOCK_SEQPACKET = 5;
const SOCK_CLOEXEC = 0o2000000;
const SOCK_NONBLOCK = 0o4000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_CTRUNC = 0x8;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;
// poll(2), <bits/poll.h>.
const POLLIN = 1;
// pipe2(2), <bits/fcntl-linux.h>.
const O_CLOEXEC = 0o2000000;
const O_NONBLOCK = 0o4000;

/** The most descriptors of one message: SCM_MAX_FD, <net/scm.h>. */
const messageDescriptors = 253;

/** struct sockaddr_un, <sys/un.h>: the family, then a path of at most 107 bytes and its NUL. */
const pathBytes = 108;

/** struct msghdr of 64-bit Linux, <bits/socket.h>; struct iovec, <bits/types/struct_iovec.h>: an address and a length. */
export const messageLayout = { byteSize: 56, iov: 16, iovlen: 24, control: 32, controllen: 40, flags: 48 } as const;
const vectorBytes = 16;

/** struct cmsghdr of 64-bit Linux: size_t length, int level, int type, then the data. */
export const controlLayout = { length: 0, level: 8, type: 12, data: 16 } as const;

/** struct pollfd, <sys/poll.h>: int fd, short events, short revents. */
const pollBytes = 8;

type PacketCalls = ReturnType<typeof bindCalls>;
let bound: PacketCalls | undefined;

/** Once in each thread, as in `libc.ts`. */
function calls(): PacketCalls {
  bound ??= bindCalls();
  return bound;
}

function bindCalls() {
  const symbols = loadLibrary("libc.so.6", {
    // int *__errno_location(void);
    __errno_location: { args: [], returns: "u64" },
    // int socket(int domain, int type, int protocol);
    socket: { args: ["i32", "i32", "i32"], returns: "i32" },
    // int bind(int fd, const struct sockaddr *address, socklen_t length);
    bind: { args: ["i32", "u64", "u32"], returns: "i32" },
    // int listen(int fd, int backlog);
    listen: { args: ["i32", "i32"], returns: "i32" },
    // int connect(int fd, const struct sockaddr *address, socklen_t length);
    connect: { args: ["i32", "u64", "u32"], returns: "i32" },
    // int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags);
    accept4: { args: ["i32", "u64", "u64", "i32"], returns: "i32" },
    // ssize_t sendmsg(int fd, const struct msghdr *message, int flags);
    sendmsg: { args: ["i32", "u64", "i32"], returns: "i64" },
    // ssize_t recvmsg(int fd, struct msghdr *message, int flags);
    recvmsg: { args: ["i32", "u64", "i32"], returns: "i64" },
    // int poll(struct pollfd *fds, nfds_t count, int timeout);
    poll: { args: ["u64", "u64", "i32"], returns: "i32" },
    // int pipe2(int fds[2], int flags);
    pipe2: { args: ["u64", "i32"], returns: "i32" },
  });
  return { symbols, errno: symbols.__errno_location() as Address };
}

const noAddress = 0n as Address;

function openSocket(): number {
  const c = calls();
  const fd = c.symbols.socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd === -1) throw failureOf("socket", readInt(c.errno));
  return fd;
}

function toAddress(path: string): Buffer {
  const byteSize = Buffer.byteLength(path);
  assert(byteSize > 0 && byteSize < pathBytes && !path.includes("\0"), `not a socket's path: ${path}`);
  const address = Buffer.alloc(2 + pathBytes);
  address.writeUInt16LE(AF_UNIX);
  address.write(path, 2);
  return address;
}

/** Makes a socket at `path`, where nothing may be, and listens. The caller closes it. socket(2), bind(2), listen(2). */
export function listenForPackets(path: string, backlog: number): number {
  const c = calls();
  const address = toAddress(path);
  const fd = openSocket();
  try {
    if (c.symbols.bind(fd, addressOf(address), address.length) !== 0) throw failureOf("bind", readInt(c.errno));
    listenAgain(fd, backlog);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** On a socket that listens: makes this process the one that SO_PEERCRED tells from now on. listen(2), unix(7). */
export function listenAgain(fd: number, backlog: number): void {
  checkDescriptor(fd);
  const c = calls();
  if (c.symbols.listen(fd, backlog) !== 0) throw failureOf("listen", readInt(c.errno));
}

/** Connects without waiting for a place in the queue (EAGAIN). The caller closes the result. connect(2). */
export function connectForPackets(path: string): number {
  const c = calls();
  const address = toAddress(path);
  const fd = openSocket();
  const result = c.symbols.connect(fd, addressOf(address), address.length);
  if (result === 0) return fd;
  const errno = readInt(c.errno);
  closeSync(fd);
  throw failureOf("connect", errno);
}

/** The next connection, or undefined if there is none. The caller closes it. accept4(2). */
export function acceptForPackets(listener: number): number | undefined {
  checkDescriptor(listener);
  const c = calls();
  for (;;) {
    const fd = c.symbols.accept4(listener, noAddress, noAddress, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd !== -1) return fd;
    const errno = readInt(c.errno);
    if (errno === EAGAIN) return undefined;
    if (errno !== EINTR) throw failureOf("accept4", errno);
  }
}

/**
 * Sends one message, with copies of `fds`, which stay the caller's. sendmsg(2), unix(7).
 * @returns false if the peer has to read first.
 */
export function sendPacket(socket: number, data: Buffer, fds: readonly number[] = []): boolean {
  checkDescriptor(socket);
  for (const fd of fds) checkDescriptor(fd);
  assert(data.length > 0 && fds.length <= messageDescriptors, "a message has bytes, and 253 descriptors at most");
  const c = calls();
  const payload = toOwnMemory(data);
  const control = toControl(fds);
  const vector = toVector(payload, payload.length);
  const message = toMessage(vector, fds.length === 0 ? undefined : control);
  for (;;) {
    const sent = c.symbols.sendmsg(socket, addressOf(message), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent !== -1n) return true;
    const errno = readInt(c.errno);
    if (errno === EAGAIN) return false;
    if (errno !== EINTR) throw failureOf("sendmsg", errno);
  }
}

export interface Packet {
  readonly data: Buffer;
  /** The receiver's to close. */
  readonly fds: readonly number[];
  /** Whether some that came with it are missing, since this process may open no more. */
  readonly lacksDescriptors: boolean;
}

/**
 * The next message; what is longer than `byteSize` is cut. recvmsg(2).
 * @returns "nothing" if none is there, "end" if none will come.
 */
export function receivePacket(socket: number, byteSize: number): Packet | "nothing" | "end" {
  checkDescriptor(socket);
  const c = calls();
  const payload = Buffer.alloc(byteSize);
  const control = Buffer.alloc(controlLayout.data + 4 * messageDescriptors + 4);
  const vector = toVector(payload, payload.length);
  const message = toMessage(vector, control);
  for (;;) {
    const received = c.symbols.recvmsg(socket, addressOf(message), MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (received === -1n) {
      const errno = readInt(c.errno);
      if (errno === EAGAIN) return "nothing";
      if (errno === EINTR) continue;
      if (errno === osConstants.errno.ECONNRESET) return "end";
      throw failureOf("recvmsg", errno);
    }
    const fds = readControl(control, Number(message.readBigUInt64LE(messageLayout.controllen)));
    if (received === 0n) {
      for (const fd of fds) closeSync(fd);
      return "end";
    }
    const lacksDescriptors = (message.readInt32LE(messageLayout.flags) & MSG_CTRUNC) !== 0;
    return { data: payload.subarray(0, Number(received)), fds, lacksDescriptors };
  }
}

/** A pooled buffer may move; the kernel gets a copy that does not. */
function toOwnMemory(data: Buffer): Buffer {
  const memory = Buffer.alloc(data.length);
  data.copy(memory);
  return memory;
}

function toVector(memory: Buffer, byteSize: number): Buffer {
  const vector = Buffer.alloc(vectorBytes);
  vector.writeBigUInt64LE(addressOf(memory), 0);
  vector.writeBigUInt64LE(BigInt(byteSize), 8);
  return vector;
}

function toMessage(vector: Buffer, control: Buffer | undefined): Buffer {
  const message = Buffer.alloc(messageLayout.byteSize);
  message.writeBigUInt64LE(addressOf(vector), messageLayout.iov);
  message.writeBigUInt64LE(1n, messageLayout.iovlen);
  if (control === undefined) return message;
  message.writeBigUInt64LE(addressOf(control), messageLayout.control);
  message.writeBigUInt64LE(BigInt(control.length), messageLayout.controllen);
  return message;
}

/** CMSG_SPACE rounds up to 8 bytes; the length in the header is the exact one (cmsg(3)). */
function toControl(fds: readonly number[]): Buffer {
  const { length, level, type, data } = controlLayout;
  const control = Buffer.alloc(data + Math.ceil((4 * fds.length) / 8) * 8);
  control.writeBigUInt64LE(BigInt(data + 4 * fds.length), length);
  control.writeInt32LE(SOL_SOCKET, level);
  control.writeInt32LE(SCM_RIGHTS, type);
  for (const [index, fd] of fds.entries()) control.writeInt32LE(fd, data + 4 * index);
  return control;
}

/** A Unix socket without further options brings no other control message, and one of descriptors at most. */
function readControl(control: Buffer, byteSize: number): number[] {
  const { length, level, type, data } = controlLayout;
  if (byteSize < data) return [];
  if (control.readInt32LE(level) !== SOL_SOCKET || control.readInt32LE(type) !== SCM_RIGHTS) return [];
  const end = Math.min(Number(control.readBigUInt64LE(length)), byteSize);
  const fds: number[] = [];
  for (let at = data; at + 4 <= end; at += 4) fds.push(control.readInt32LE(at));
  return fds;
}

/**
 * Waits until one of `fds` can be read, or has ended, or until `timeoutMs` are over; without one for ever. poll(2).
 * @returns those that can be; none if a signal came first.
 */
export function waitForInput(fds: readonly number[], timeoutMs?: number): number[] {
  const c = calls();
  const records = Buffer.alloc(Math.max(1, fds.length) * pollBytes);
  for (const [index, fd] of fds.entries()) {
    checkDescriptor(fd);
    records.writeInt32LE(fd, index * pollBytes);
    records.writeInt16LE(POLLIN, index * pollBytes + 4);
  }
  const timeout = timeoutMs === undefined ? -1 : Math.min(Math.max(0, Math.ceil(timeoutMs)), 2 ** 31 - 1);
  const result = c.symbols.poll(addressOf(records), BigInt(fds.length), timeout);
  if (result === -1) {
    const errno = readInt(c.errno);
    if (errno === EINTR) return [];
    throw failureOf("poll", errno);
  }
  return fds.filter((_, index) => records.readInt16LE(index * pollBytes + 6) !== 0);
}

/** Two ends, neither of which waits; the caller's to close. pipe2(2). */
export function openPipe(): { readonly reader: number; readonly writer: number } {
  const c = calls();
  const fds = Buffer.alloc(8);
  if (c.symbols.pipe2(addressOf(fds), O_CLOEXEC | O_NONBLOCK) !== 0) throw failureOf("pipe2", readInt(c.errno));
  return { reader: fds.readInt32LE(0), writer: fds.readInt32LE(4) };
}
