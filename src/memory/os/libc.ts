/**
 * One checked, typed function for each C library call that `node:fs` cannot make. No policy: each checks its arguments,
 * calls, reads errno in the next statement and throws `SystemError`.
 */

import assert from "node:assert/strict";
import { constants as osConstants } from "node:os";
import { SystemError } from "../error.ts";
import { type Address, addressOf, loadLibrary, readInt } from "./ffi.ts";

const maxOffset = 2n ** 63n - 1n;

// fcntl(2), <bits/fcntl-linux.h>: open-file-description locks.
const F_DUPFD_CLOEXEC = 1030;
const F_SETFL = 4;
const O_NONBLOCK = 0o4000;
const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const F_RDLCK = 0;
const F_WRLCK = 1;
const F_UNLCK = 2;
const SEEK_SET = 0;
const SEEK_CUR = 1;

// socket(7), <asm-generic/socket.h>.
const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
const SO_RCVBUF = 8;
const SO_ACCEPTCONN = 30;

// inotify(7), <sys/inotify.h>, <bits/inotify.h>.
const IN_NONBLOCK = 0o4000;
const IN_CLOEXEC = 0o2000000;
const IN_MOVED_FROM = 0x40;
const IN_MOVED_TO = 0x80;
const IN_DELETE = 0x200;

/** struct flock of 64-bit Linux, <bits/fcntl.h>: short type, short whence, off_t start, off_t len, pid_t pid. */
export const flockLayout = { byteSize: 32, type: 0, whence: 2, start: 8, length: 16, pid: 24 } as const;

// getrlimit(2), <asm-generic/resource.h>.
const RLIMIT_NOFILE = 7;

type LibraryOfC = ReturnType<typeof bindLibrary>;
let bound: LibraryOfC | undefined;

/**
 * Binds once in each thread: errno's place differs from thread to thread. For `libc-sockets.ts` and its like, which
 * are parts of this.
 */
export function library(): LibraryOfC {
  bound ??= bindLibrary();
  return bound;
}

function bindLibrary() {
  const symbols = loadLibrary("libc.so.6", {
    // int *__errno_location(void);
    __errno_location: { args: [], returns: "u64" },
    // int fallocate(int fd, int mode, off_t offset, off_t len);
    fallocate: { args: ["i32", "i32", "i64", "i64"], returns: "i32" },
    // int memfd_create(const char *name, unsigned int flags);
    memfd_create: { args: ["u64", "u32"], returns: "i32" },
    // void *mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset);
    mmap: { args: ["u64", "u64", "i32", "i32", "i32", "i64"], returns: "i64" },
    // int munmap(void *addr, size_t length);
    munmap: { args: ["u64", "u64"], returns: "i32" },
    // int madvise(void *addr, size_t length, int advice);
    madvise: { args: ["u64", "u64", "i32"], returns: "i32" },
    // int mincore(void *addr, size_t length, unsigned char *vec);
    mincore: { args: ["u64", "u64", "u64"], returns: "i32" },
    // void *memcpy(void *dest, const void *src, size_t n);
    memcpy: { args: ["u64", "u64", "u64"], returns: "u64" },
    // int fcntl(int fd, int op, struct flock *lock); or an int in its place.
    fcntl: { args: ["i32", "i32", "u64"], returns: "i32" },
    // int inotify_init1(int flags);
    inotify_init1: { args: ["i32"], returns: "i32" },
    // int inotify_add_watch(int fd, const char *pathname, uint32_t mask);
    inotify_add_watch: { args: ["i32", "u64", "u32"], returns: "i32" },
    // int getsockopt(int fd, int level, int name, void *value, socklen_t *length);
    getsockopt: { args: ["i32", "i32", "i32", "u64", "u64"], returns: "i32" },
    // int setsockopt(int fd, int level, int name, const void *value, socklen_t length);
    setsockopt: { args: ["i32", "i32", "i32", "u64", "u32"], returns: "i32" },
    // off_t lseek(int fd, off_t offset, int whence);
    lseek: { args: ["i32", "i64", "i32"], returns: "i64" },
    // int getrlimit(int resource, struct rlimit *limit);
    getrlimit: { args: ["i32", "u64"], returns: "i32" },
    // int setrlimit(int resource, const struct rlimit *limit);
    setrlimit: { args: ["i32", "u64"], returns: "i32" },
    // int epoll_ctl(int epoll, int op, int fd, struct epoll_event *event);
    epoll_ctl: { args: ["i32", "i32", "i32", "u64"], returns: "i32" },
    // int getpeername(int fd, struct sockaddr *address, socklen_t *length);
    getpeername: { args: ["i32", "u64", "u64"], returns: "i32" },
    // int getsockname(int fd, struct sockaddr *address, socklen_t *length);
    getsockname: { args: ["i32", "u64", "u64"], returns: "i32" },
    // int prctl(int op, unsigned long value, …);
    prctl: { args: ["i32", "u64"], returns: "i32" },
    // int shutdown(int fd, int how);
    shutdown: { args: ["i32", "i32"], returns: "i32" },
    // int openat(int directory, const char *name, int flags, mode_t mode);
    openat: { args: ["i32", "u64", "i32", "u32"], returns: "i32" },
    // int renameat(int from_directory, const char *from, int to_directory, const char *to);
    renameat: { args: ["i32", "u64", "i32", "u64"], returns: "i32" },
    // int linkat(int from_directory, const char *from, int to_directory, const char *to, int flags);
    linkat: { args: ["i32", "u64", "i32", "u64", "i32"], returns: "i32" },
    // int posix_fadvise(int fd, off_t offset, off_t len, int advice);
    posix_fadvise: { args: ["i32", "i64", "i64", "i32"], returns: "i32" },
    // long syscall(long number, …); here of four arguments.
    syscall: { args: ["i64", "i64", "u64", "u64", "u64"], returns: "i64" },
  });
  return { symbols, errno: symbols.__errno_location() as Address };
}

const errnoNames = new Map(Object.entries(osConstants.errno).map(([name, value]) => [value, name]));

export function failureOf(call: string, errno: number): SystemError {
  return new SystemError(call, errno, errnoNames.get(errno) ?? `errno ${errno}`);
}

export function checkDescriptor(fd: number): void {
  // The sentence is written only where it is said, here and below: every call of an allocation passes.
  if (!Number.isInteger(fd) || fd < 0 || fd >= 2 ** 31) assert.fail(`not a file descriptor: ${fd}`);
}

function toOffset(value: number | bigint): bigint {
  const offset = BigInt(value);
  if (offset < 0n || offset > maxOffset) assert.fail(`not a file offset: ${offset}`);
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

/** Moves the position of `fd`'s open file description, which all its duplicates share. lseek(2), SEEK_SET. */
export function seek(fd: number, byteOffset: number): void {
  const { position, errno } = lseek(fd, toOffset(byteOffset), SEEK_SET);
  if (position === -1n) throw failureOf("lseek", errno);
}

/** As `seek`; false, and nothing is moved, if the file system knows no such offset. */
export function trySeek(fd: number, byteOffset: bigint): boolean {
  const { position, errno } = lseek(fd, toOffset(byteOffset), SEEK_SET);
  if (position === -1n && errno !== osConstants.errno.EINVAL) throw failureOf("lseek", errno);
  return position !== -1n;
}

/** The position of `fd`'s open file description. lseek(2), SEEK_CUR. */
export function readPosition(fd: number): number {
  const { position, errno } = lseek(fd, 0n, SEEK_CUR);
  if (position === -1n) throw failureOf("lseek", errno);
  return Number(position);
}

function lseek(fd: number, offset: bigint, whence: number): { readonly position: bigint; readonly errno: number } {
  checkDescriptor(fd);
  const c = library();
  const position = c.symbols.lseek(fd, offset, whence);
  return { position, errno: readInt(c.errno) };
}

/** Whether `fd` is a socket that listens. getsockopt(2), SO_ACCEPTCONN. */
export function isListening(fd: number): boolean {
  checkDescriptor(fd);
  const c = library();
  const value = Buffer.alloc(4);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(value.length);
  const result = c.symbols.getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, addressOf(value), addressOf(length));
  if (result === 0) return value.readInt32LE() !== 0;
  const errno = readInt(c.errno);
  if (errno === osConstants.errno.ENOTSOCK || errno === osConstants.errno.EBADF) return false;
  throw failureOf("getsockopt(SO_ACCEPTCONN)", errno);
}

/**
 * Bounds what the kernel keeps for `fd` in one direction, to about twice `byteSize`; what a listening socket accepts has
 * its bounds. socket(7), SO_RCVBUF and SO_SNDBUF.
 */
export function setSocketBuffer(fd: number, direction: "receive" | "send", byteSize: number): void {
  checkDescriptor(fd);
  assert(Number.isInteger(byteSize) && byteSize > 0 && byteSize < 2 ** 30, `not a buffer's size: ${byteSize}`);
  const c = library();
  const value = Buffer.alloc(4);
  value.writeInt32LE(byteSize);
  const name = direction === "receive" ? SO_RCVBUF : SO_SNDBUF;
  const result = c.symbols.setsockopt(fd, SOL_SOCKET, name, addressOf(value), value.length);
  if (result !== 0) throw failureOf(`setsockopt(${name})`, readInt(c.errno));
}

/** A descriptor that watches nothing yet, is read without waiting, and is the caller's to close. inotify_init1(2). */
export function openInotify(): number {
  const c = library();
  const fd = c.symbols.inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  if (fd === -1) throw failureOf("inotify_init1", readInt(c.errno));
  return fd;
}

/**
 * From now on the inotify descriptor `fd` tells of names in the directory at `path` that are deleted, moved away or moved
 * onto; not of files that are made, opened, written or closed there. inotify_add_watch(2).
 */
export function watchNames(fd: number, path: string): void {
  checkDescriptor(fd);
  assert(!path.includes("\0"), "a path has no NUL");
  const c = library();
  const text = Buffer.alloc(Buffer.byteLength(path) + 1);
  text.write(path);
  const watch = c.symbols.inotify_add_watch(fd, addressOf(text), IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO);
  if (watch === -1) throw failureOf("inotify_add_watch", readInt(c.errno));
}

function flock(type: number, start: bigint, length: bigint): Buffer {
  const lock = Buffer.alloc(flockLayout.byteSize);
  lock.writeInt16LE(type, flockLayout.type);
  lock.writeInt16LE(SEEK_SET, flockLayout.whence);
  lock.writeBigInt64LE(toOffset(start), flockLayout.start);
  lock.writeBigInt64LE(toOffset(length), flockLayout.length);
  return lock;
}

/** Whether another open file description holds a lock on the range that would keep a write lock out. */
export function isLocked(fd: number, start: bigint, length: bigint): boolean {
  return findLock(fd, start, length) !== undefined;
}

/**
 * The kind of lock on the range that would keep a write lock out, if another open file description holds one; of several
 * the first. Takes nothing and works on an `O_RDONLY` descriptor; the kernel never says who it is. fcntl(2), F_OFD_GETLK.
 */
export function findLock(fd: number, start: bigint, length: bigint): "read" | "write" | undefined {
  checkDescriptor(fd);
  const c = library();
  const lock = flock(F_WRLCK, start, length);
  const result = c.symbols.fcntl(fd, F_OFD_GETLK, addressOf(lock));
  if (result === -1) throw failureOf("fcntl(F_OFD_GETLK)", readInt(c.errno));
  const type = lock.readInt16LE(flockLayout.type);
  if (type === F_UNLCK) return undefined;
  return type === F_RDLCK ? "read" : "write";
}

/** Another descriptor of the same open file description, the caller's to close. fcntl(2), F_DUPFD_CLOEXEC. */
export function duplicateDescriptor(fd: number): number {
  checkDescriptor(fd);
  const c = library();
  const result = c.symbols.fcntl(fd, F_DUPFD_CLOEXEC, 3n);
  if (result === -1) throw failureOf("fcntl(F_DUPFD_CLOEXEC)", readInt(c.errno));
  return result;
}

/** What cannot be done at once fails from now on, for every descriptor of the same description. fcntl(2), F_SETFL. */
export function setNonBlocking(fd: number): void {
  checkDescriptor(fd);
  const c = library();
  // What else may be set there (O_APPEND …) means nothing for sockets.
  const result = c.symbols.fcntl(fd, F_SETFL, BigInt(O_NONBLOCK));
  if (result === -1) throw failureOf("fcntl(F_SETFL)", readInt(c.errno));
}

/** Takes a lock on the whole of `fd`'s file for its open file description; false if another one holds one. fcntl(2). */
export function tryLockFile(fd: number): boolean {
  return tryWriteLock(fd, 0n, 0n);
}

/** Takes a read lock on a range for `fd`'s open file description, as a client's lease is; false if it is kept out. */
export function tryReadLock(fd: number, start: bigint, length: bigint): boolean {
  return trySetLock(fd, F_RDLCK, start, length);
}

/** Takes a write lock on a range for `fd`'s open file description, which must be writable; false if it is kept out. */
export function tryWriteLock(fd: number, start: bigint, length: bigint): boolean {
  return trySetLock(fd, F_WRLCK, start, length);
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

/** How many descriptors this process may have: `soft` counts, and may be raised up to `hard`. */
export interface DescriptorLimit {
  readonly soft: bigint;
  readonly hard: bigint;
}

/** struct rlimit of 64-bit Linux, <bits/resource.h>: two unsigned longs, the soft limit first. */
const rlimitBytes = 16;

/** getrlimit(2), RLIMIT_NOFILE. */
export function readDescriptorLimit(): DescriptorLimit {
  const c = library();
  const limit = Buffer.alloc(rlimitBytes);
  const result = c.symbols.getrlimit(RLIMIT_NOFILE, addressOf(limit));
  if (result !== 0) throw failureOf("getrlimit", readInt(c.errno));
  return { soft: limit.readBigUInt64LE(0), hard: limit.readBigUInt64LE(8) };
}

/** For all threads of this process, and for what is opened from now on: what is open stays. setrlimit(2). */
export function setDescriptorLimit({ soft, hard }: DescriptorLimit): void {
  assert(soft > 0n && soft <= hard, `no limit of descriptors: ${soft} of ${hard}`);
  const c = library();
  const limit = Buffer.alloc(rlimitBytes);
  limit.writeBigUInt64LE(soft, 0);
  limit.writeBigUInt64LE(hard, 8);
  const result = c.symbols.setrlimit(RLIMIT_NOFILE, addressOf(limit));
  if (result !== 0) throw failureOf("setrlimit", readInt(c.errno));
}
