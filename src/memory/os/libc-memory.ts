/**
 * The part of `libc.ts` about anonymous memory files: how one is made, what the kernel is told to refuse on it, and how
 * bytes come into one that takes no pwrite(2).
 */

import assert from "node:assert/strict";
import { constants as osConstants } from "node:os";
import { addressOf, readInt } from "./ffi.ts";
import { checkDescriptor, failureOf, library } from "./libc.ts";

// memfd_create(2), <linux/memfd.h>.
const MFD_CLOEXEC = 0x1;
const MFD_ALLOW_SEALING = 0x2;
const MFD_HUGETLB = 0x4;
const MFD_NOEXEC_SEAL = 0x8;
const MFD_HUGE_SHIFT = 26;

// fcntl(2), <linux/fcntl.h>: file seals.
const F_ADD_SEALS = 1033;
const F_GET_SEALS = 1034;
const seals = { shrink: 0x2, grow: 0x4, write: 0x8 } as const;
export type FileSeal = keyof typeof seals;

// mmap(2), <asm-generic/mman-common.h>.
const PROT_WRITE = 0x2;
const MAP_SHARED = 0x1;

/** Longest name of a memfd (memfd_create(2)). */
const nameBytes = 249;

/**
 * A file without a name in any file system, of 0 bytes, which the caller closes. Nobody can make it executable, where the
 * kernel knows of that (6.3 and later; an earlier one refuses the flag by EINVAL).
 * @param name what /proc shows of it.
 * @param hugePageBytes the size of its pages, a power of two; undefined: the system's. memfd_create(2).
 */
export function createMemfd(name: string, hugePageBytes?: number): number {
  assert(!name.includes("\0") && Buffer.byteLength(name) <= nameBytes, `not a memfd's name: ${name}`);
  let flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  if (hugePageBytes !== undefined) {
    const log = Math.log2(hugePageBytes);
    assert(Number.isInteger(log) && log >= 12 && log < 64, `not a page's size: ${hugePageBytes}`);
    flags |= MFD_HUGETLB | (log << MFD_HUGE_SHIFT);
  }
  const c = library();
  const text = Buffer.alloc(Buffer.byteLength(name) + 1);
  text.write(name);
  for (const unlessUnknown of [MFD_NOEXEC_SEAL, 0]) {
    const fd = c.symbols.memfd_create(addressOf(text), (flags | unlessUnknown) >>> 0);
    if (fd !== -1) return fd;
    const errno = readInt(c.errno);
    if (errno !== osConstants.errno.EINVAL || unlessUnknown === 0) throw failureOf("memfd_create", errno);
  }
  assert.fail("the last try returns or throws");
}

/** From now on the kernel refuses these changes of `fd`'s file, whoever asks. fcntl(2), F_ADD_SEALS. */
export function addSeals(fd: number, ...added: readonly FileSeal[]): void {
  checkDescriptor(fd);
  const c = library();
  const result = c.symbols.fcntl(fd, F_ADD_SEALS, BigInt(added.reduce((all, seal) => all | seals[seal], 0)));
  if (result === -1) throw failureOf("fcntl(F_ADD_SEALS)", readInt(c.errno));
}

/** Whether the kernel refuses that change of `fd`'s file. fcntl(2), F_GET_SEALS. */
export function hasSeal(fd: number, seal: FileSeal): boolean {
  checkDescriptor(fd);
  const c = library();
  const result = c.symbols.fcntl(fd, F_GET_SEALS, 0n);
  if (result === -1) throw failureOf("fcntl(F_GET_SEALS)", readInt(c.errno));
  return (result & seals[seal]) !== 0;
}

/**
 * Copies `bytes` to `byteOffset` of `fd`'s file through a mapping that is there for as long as that takes: for files that
 * refuse pwrite(2), as those of huge pages do. The pages must be allocated, and the file sealed against shrinking, or a touch
 * of one that is not there ends the process. mmap(2).
 */
export function writeMapped(fd: number, byteOffset: number, bytes: Uint8Array, pageBytes: number): void {
  checkDescriptor(fd);
  assert(Number.isSafeInteger(byteOffset) && byteOffset >= 0 && bytes.length > 0);
  assert(hasSeal(fd, "shrink"), "mapped is only what cannot shrink");
  const start = byteOffset - (byteOffset % pageBytes);
  const length = BigInt(byteOffset - start + bytes.length);
  // Its address is taken.
  const copied = Buffer.alloc(bytes.length);
  copied.set(bytes);
  const c = library();
  const address = c.symbols.mmap(0n, length, PROT_WRITE, MAP_SHARED, fd, BigInt(start));
  if (address === -1n) throw failureOf("mmap", readInt(c.errno));
  c.symbols.memcpy(BigInt.asUintN(64, address) + BigInt(byteOffset - start), addressOf(copied), BigInt(copied.length));
  // Of huge pages the kernel takes whole ones only.
  const whole = (length + BigInt(pageBytes) - 1n) & ~(BigInt(pageBytes) - 1n);
  const result = c.symbols.munmap(BigInt.asUintN(64, address), whole);
  if (result === -1) throw failureOf("munmap", readInt(c.errno));
}
