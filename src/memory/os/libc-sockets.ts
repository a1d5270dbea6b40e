/**
 * The part of `libc.ts` about connections, whose descriptors the runtime does not tell: whose they are, how one is ended, and how
 * a listener rests for a while.
 */

import { constants as osConstants } from "node:os";
import { addressOf, readInt } from "./ffi.ts";
import { checkDescriptor, failureOf, library } from "./libc.ts";

// socket(2), <bits/socket.h>.
const AF_UNIX = 1;
const AF_INET = 2;
const AF_INET6 = 10;
const SHUT_RDWR = 2;
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
// tcp(7), <linux/tcp.h>: bytes of struct tcp_info that are read here.
const IPPROTO_TCP = 6;
const TCP_INFO = 11;
const tcpInfo = { byteSize: 160, lastDataSentMs: 44, notSentBytes: 144, answers: 156 } as const;
// epoll_ctl(2), <sys/epoll.h>.
const EPOLL_CTL_MOD = 3;

/** Large enough for every kind: struct sockaddr_storage. */
const addressBytes = 128;

/** One end of a socket: over TCP its port, over a Unix socket nobody can tell. */
export type End = { readonly kind: "tcp"; readonly port: number } | { readonly kind: "unix" };

const noConnection = new Set<number>([
  osConstants.errno.EBADF,
  osConstants.errno.ENOTSOCK,
  osConstants.errno.ENOTCONN,
  osConstants.errno.EOPNOTSUPP,
  osConstants.errno.EINVAL,
]);

/** The other end of `fd`, or undefined if that is no connected socket. getpeername(2). */
export function readPeer(fd: number): End | undefined {
  return readEnd(fd, "getpeername");
}

/** This end of `fd`, or undefined if that is no socket. getsockname(2). */
export function readOwn(fd: number): End | undefined {
  return readEnd(fd, "getsockname");
}

function readEnd(fd: number, call: "getpeername" | "getsockname"): End | undefined {
  checkDescriptor(fd);
  const c = library();
  const address = Buffer.alloc(addressBytes);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(addressBytes);
  const result = c.symbols[call](fd, addressOf(address), addressOf(length));
  if (result !== 0) {
    const errno = readInt(c.errno);
    if (noConnection.has(errno)) return undefined;
    throw failureOf(call, errno);
  }
  const family = address.readUInt16LE(0);
  if (family === AF_UNIX) return { kind: "unix" };
  return family === AF_INET || family === AF_INET6 ? { kind: "tcp", port: address.readUInt16BE(2) } : undefined;
}

export interface Sent {
  /** Segments with data that left: none of a connection that was never answered. */
  readonly segments: number;
  /** What waits until the peer takes something. */
  readonly waitingBytes: number;
  readonly lastMs: number;
}

/** What went out over the TCP connection `fd`. getsockopt(2), TCP_INFO. */
export function readSent(fd: number): Sent | undefined {
  const info = getOption(fd, IPPROTO_TCP, TCP_INFO, tcpInfo.byteSize);
  return (
    info && {
      segments: info.readUInt32LE(tcpInfo.answers),
      waitingBytes: info.readUInt32LE(tcpInfo.notSentBytes),
      lastMs: info.readUInt32LE(tcpInfo.lastDataSentMs),
    }
  );
}

/** The process at the other end of the Unix connection `fd`; 0 if its namespace is not ours. getsockopt(2), SO_PEERCRED. */
export function readPeerPid(fd: number): number | undefined {
  // struct ucred: pid_t pid, uid_t uid, gid_t gid.
  return getOption(fd, SOL_SOCKET, SO_PEERCRED, 12)?.readInt32LE(0);
}

/** A socket's option, or undefined if `fd` is no such socket any more. */
function getOption(fd: number, level: number, name: number, byteSize: number): Buffer | undefined {
  checkDescriptor(fd);
  const c = library();
  const value = Buffer.alloc(byteSize);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(byteSize);
  const result = c.symbols.getsockopt(fd, level, name, addressOf(value), addressOf(length));
  if (result === 0) return value;
  const errno = readInt(c.errno);
  if (noConnection.has(errno)) return undefined;
  throw failureOf(`getsockopt(${level}, ${name})`, errno);
}

/** Ends a connection in both directions; whoever owns the descriptor sees its end, and closes it. shutdown(2). */
export function endConnection(fd: number): void {
  checkDescriptor(fd);
  const c = library();
  const result = c.symbols.shutdown(fd, SHUT_RDWR);
  if (result === 0) return;
  const errno = readInt(c.errno);
  if (!noConnection.has(errno)) throw failureOf("shutdown", errno);
}

/** struct epoll_event: u32 events, u64 data; packed on x86-64 alone (<bits/epoll.h>). */
export const eventLayout = process.arch === "x64" ? { byteSize: 12, data: 4 } : { byteSize: 16, data: 8 };

/** Changes what `epoll` waits for on `fd`; `data` is handed back as it was. epoll_ctl(2), EPOLL_CTL_MOD. */
export function setPollEvents(epoll: number, fd: number, events: number, data: bigint): void {
  checkDescriptor(epoll);
  checkDescriptor(fd);
  const c = library();
  const event = Buffer.alloc(eventLayout.byteSize);
  event.writeUInt32LE(events, 0);
  event.writeBigUInt64LE(data, eventLayout.data);
  const result = c.symbols.epoll_ctl(epoll, EPOLL_CTL_MOD, fd, addressOf(event));
  if (result !== 0) throw failureOf("epoll_ctl", readInt(c.errno));
}
