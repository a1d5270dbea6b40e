/** The seam to C: one checked function a call, the C declaration in it, and no policy. Addresses are bigints. */

import { getSystemErrorName } from "node:util";
import { loadKoffi } from "../packages.ts";
import { checkPlatform } from "./platform.ts";

// <sys/mman.h>, the same values on x86-64 and arm64.
export const PROT_NONE = 0;
export const PROT_READ = 1;
export const PROT_WRITE = 2;
export const PROT_EXEC = 4;
export const MAP_SHARED = 0x01;
export const MAP_PRIVATE = 0x02;
export const MAP_FIXED = 0x10;
export const MAP_ANONYMOUS = 0x20;
export const MAP_NORESERVE = 0x4000;
const MADV_POPULATE_WRITE = 23;
const advices = { normal: 0, random: 1, sequential: 2, willneed: 3, dontneed: 4 } as const;
const MREMAP_MAYMOVE_FIXED = 1 | 2;
const MLOCK_ONFAULT = 1;
const MS_INVALIDATE = 2;
// <fcntl.h>, likewise.
export const F_OFD_GETLK = 36;
export const F_OFD_SETLK = 37;

// <dlfcn.h>, in glibc and musl.
const RTLD_DEFAULT = 0n;

const MAP_FAILED = 0xffff_ffff_ffff_ffffn;

/** A call that the operating system refused; `code` is the errno's name. */
export class SystemError extends Error {
  override readonly name = "SystemError";
  readonly code: string;

  constructor(call: string, errno: number) {
    const code = getSystemErrorName(-errno);
    super(`${call}: ${code}`);
    this.code = code;
  }
}

type Call = (...args: readonly (number | bigint | Buffer)[]) => number | bigint;

type Symbols = (handle: bigint, name: string) => number | bigint;

interface Library {
  readonly koffi: ReturnType<typeof loadKoffi>;
  readonly mmap: Call;
  readonly munmap: Call;
  readonly madvise: Call;
  readonly mincore: Call;
  readonly fcntl: Call;
  readonly mprotect: Call;
  readonly mremap: Call;
  readonly mlock: Call;
  readonly mlock2: Call;
  readonly msync: Call;
  readonly dlsym: Symbols;
  readonly pthread_key_create: Call;
  readonly pthread_key_delete: Call;
  readonly pthread_setspecific: Call;
  readonly socket: Call;
  readonly connect: Call;
  readonly sendmsg: Call;
  readonly recvmsg: Call;
  readonly poll: Call;
  readonly close: Call;
  readonly memfd_create: Call;
  readonly fcntl_number: Call;
  readonly syscall: (...args: readonly (number | bigint | null)[]) => number | bigint;
  readonly sched_yield: () => number;
  readonly pageSize: number;
}

let loaded: Library | undefined;

/** Bound at the first call, so that the package can be imported on systems where it cannot map. For `libc-unix.ts` and `libc-memfd.ts`, beside this. */
export function library(): Library {
  loaded ??= load();
  return loaded;
}

function load(): Library {
  checkPlatform("map shared memory");
  const koffi = loadKoffi();
  const libc = koffi.load(null);
  return {
    koffi,
    mmap: libc.func("uintptr_t mmap(uintptr_t addr, size_t length, int prot, int flags, int fd, int64_t offset)"),
    munmap: libc.func("int munmap(uintptr_t addr, size_t length)"),
    madvise: libc.func("int madvise(uintptr_t addr, size_t length, int advice)"),
    mincore: libc.func("int mincore(uintptr_t addr, size_t length, void *vec)"),
    // Declared without `...`: on Linux the third argument of a variadic call travels as any other does.
    fcntl: libc.func("int fcntl(int fd, int op, void *arg)"),
    mprotect: libc.func("int mprotect(uintptr_t addr, size_t length, int prot)"),
    // Without `...` as well.
    mremap: libc.func("uintptr_t mremap(uintptr_t old, size_t old_size, size_t size, int flags, uintptr_t address)"),
    mlock: libc.func("int mlock(uintptr_t addr, size_t length)"),
    mlock2: libc.func("int mlock2(uintptr_t addr, size_t length, unsigned int flags)"),
    msync: libc.func("int msync(uintptr_t addr, size_t length, int flags)"),
    dlsym: libc.func("uintptr_t dlsym(uintptr_t handle, const char *name)"),
    pthread_key_create: libc.func("int pthread_key_create(void *key, uintptr_t destructor)"),
    pthread_key_delete: libc.func("int pthread_key_delete(unsigned int key)"),
    pthread_setspecific: libc.func("int pthread_setspecific(unsigned int key, uintptr_t value)"),
    socket: libc.func("int socket(int domain, int type, int protocol)"),
    connect: libc.func("int connect(int fd, void *address, unsigned int length)"),
    sendmsg: libc.func("int64_t sendmsg(int fd, uintptr_t message, int flags)"),
    recvmsg: libc.func("int64_t recvmsg(int fd, uintptr_t message, int flags)"),
    poll: libc.func("int poll(void *fds, unsigned long count, int timeout_ms)"),
    close: libc.func("int close(int fd)"),
    memfd_create: libc.func("int memfd_create(void *name, unsigned int flags)"),
    // With a number in the place of the pointer, as some operations want it.
    fcntl_number: libc.func("fcntl", "int", ["int", "int", "int"]),
    // futex(2) has no function of its own. Without `...` as well.
    syscall: libc.func(
      "int64_t syscall(int64_t number, uintptr_t address, int op, uint32_t value, void *timeout, uintptr_t second, uint32_t last)",
    ),
    sched_yield: libc.func("int sched_yield()"),
    pageSize: Number(libc.func("int getpagesize()")()),
  };
}

/** The size of a page in bytes. */
export function pageSize(): number {
  return library().pageSize;
}

/** mmap(2). Unless the flags say `MAP_FIXED`, `address` is a wish, and 0n none. @returns the address. @throws SystemError */
export function mmap(
  address: bigint,
  length: number,
  prot: number,
  flags: number,
  fd: number,
  byteOffset: number,
): bigint {
  const result = BigInt(library().mmap(address, length, prot, flags, fd, byteOffset));
  if (result === MAP_FAILED) throw new SystemError("mmap", library().koffi.errno());
  return result;
}

/** munmap(2). Runs when collectors find something dead, where nobody could act on a failure, so it reports none. */
export function munmap(address: bigint, length: number): void {
  library().munmap(address, length);
}

/** mprotect(2). @throws SystemError */
export function mprotect(address: bigint, length: number, prot: number): void {
  if (library().mprotect(address, length, prot) !== 0) throw new SystemError("mprotect", library().koffi.errno());
}

/** mremap(2) of a mapping onto the place of another, which goes in the same step. @throws SystemError */
export function move(address: bigint, length: number, target: bigint): void {
  const result = BigInt(library().mremap(address, length, length, MREMAP_MAYMOVE_FIXED, target));
  if (result === MAP_FAILED) throw new SystemError("mremap", library().koffi.errno());
}

/** mlock(2): the pages are in memory, and stay. @throws SystemError */
export function mlock(address: bigint, length: number): void {
  if (library().mlock(address, length) !== 0) throw new SystemError("mlock", library().koffi.errno());
}

/** mlock2(2): each page is locked once it is there, and a private one is not copied for it. @throws SystemError */
export function lockOnFault(address: bigint, length: number): void {
  if (library().mlock2(address, length, MLOCK_ONFAULT) !== 0) {
    throw new SystemError("mlock2", library().koffi.errno());
  }
}

/**
 * Whether any of the pages is locked. Changes nothing: msync(2) answers `EBUSY` then to `MS_INVALIDATE`, which does nothing
 * else on Linux. @throws SystemError
 */
export function isLocked(address: bigint, length: number): boolean {
  const { koffi, msync } = library();
  if (msync(address, length, MS_INVALIDATE) === 0) return false;
  const errno = koffi.errno();
  if (errno === koffi.os.errno.EBUSY) return true;
  throw new SystemError("msync", errno);
}

/** Whether what this process maps from now on is locked: it called `mlockall(MCL_FUTURE)`. @throws SystemError */
export function locksNewMaps(): boolean {
  const { pageSize } = library();
  const address = mmap(0n, pageSize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  try {
    return isLocked(address, pageSize);
  } finally {
    munmap(address, pageSize);
  }
}

/** dlsym(3) among what is loaded: the address of a function. @throws SystemError `ENOENT` if there is none */
export function addressOf(name: string): bigint {
  const address = BigInt(library().dlsym(RTLD_DEFAULT, name));
  if (address === 0n) throw new SystemError("dlsym", library().koffi.os.errno.ENOENT ?? 0);
  return address;
}

/** pthread_key_create(3) with a destructor's address. @throws SystemError `EAGAIN` if this process has 1024 of them */
export function createThreadKey(destructor: bigint): number {
  const key = Buffer.alloc(4);
  const errno = Number(library().pthread_key_create(key, destructor));
  if (errno !== 0) throw new SystemError("pthread_key_create", errno);
  return key.readUInt32LE();
}

/** pthread_key_delete(3). */
export function deleteThreadKey(key: number): void {
  library().pthread_key_delete(key);
}

/** pthread_setspecific(3): what this thread's destructor is called with. @throws SystemError */
export function setThreadValue(key: number, value: bigint): void {
  const errno = Number(library().pthread_setspecific(key, value));
  if (errno !== 0) throw new SystemError("pthread_setspecific", errno);
}

/**
 * madvise(2) with `MADV_POPULATE_WRITE` on the whole pages around the range: what cannot be had is an error, where a
 * touch would be a signal. Kernels before 5.14 do not know it (`EINVAL`); pages then come one by one with the first touch.
 * @throws SystemError `EFAULT` if the file ends before the range
 */
export function populateForWriting(address: bigint, length: number): void {
  const { koffi, madvise, pageSize } = library();
  const start = address - (address % BigInt(pageSize));
  const size = Number(address - start) + length;
  while (madvise(start, size, MADV_POPULATE_WRITE) !== 0) {
    const errno = koffi.errno();
    if (errno === koffi.os.errno.EINVAL) return;
    if (errno !== koffi.os.errno.EINTR) throw new SystemError("madvise", errno);
  }
}

/**
 * madvise(2) on whole pages. `dontneed` takes private pages that were written to away: whoever calls it has looked.
 * @throws SystemError
 */
export function adviseOn(address: bigint, length: number, advice: keyof typeof advices): void {
  const { koffi, madvise } = library();
  if (madvise(address, length, advices[advice]) !== 0) throw new SystemError("madvise", koffi.errno());
}

/**
 * mincore(2): how many of the pages are in memory. Of a file that this process neither owns nor may write to the kernel says all.
 * @throws SystemError
 */
export function residentPages(address: bigint, length: number): number {
  const { koffi, mincore, pageSize } = library();
  const found = Buffer.alloc(Math.ceil(length / pageSize));
  if (mincore(address, length, found) !== 0) throw new SystemError("mincore", koffi.errno());
  // Of each byte the lowest bit counts.
  return found.reduce((count, byte) => count + (byte & 1), 0);
}

/** fcntl(2) with a pointer to a struct, in `argument`. @throws SystemError */
export function fcntl(fd: number, operation: number, argument: Buffer): void {
  if (library().fcntl(fd, operation, argument) === -1) throw new SystemError("fcntl", library().koffi.errno());
}

/** As `fcntl`. @returns false where another process is in the way: EAGAIN or, as POSIX allows, EACCES. @throws SystemError */
export function tryFcntl(fd: number, operation: number, argument: Buffer): boolean {
  const { koffi, fcntl: call } = library();
  if (call(fd, operation, argument) !== -1) return true;
  const errno = koffi.errno();
  if (errno === koffi.os.errno.EAGAIN || errno === koffi.os.errno.EACCES) return false;
  throw new SystemError("fcntl", errno);
}

/** The bytes at an address as an `ArrayBuffer`, which frees nothing when it is collected. */
export function viewAt(address: bigint, length: number): ArrayBuffer {
  return library().koffi.view(address, length);
}
