/**
 * The part of `libc.ts` about the pages of a file: making huge ones of small ones, and counting those that are in memory, through a map
 * that nobody can touch.
 */

import assert from "node:assert/strict";
import { constants as osConstants } from "node:os";
import { limits } from "../limits.ts";
import { addressOf, readInt } from "./ffi.ts";
import { checkDescriptor, failureOf, library } from "./libc.ts";

// mmap(2), <asm-generic/mman-common.h>.
const PROT_NONE = 0x0;
const MAP_SHARED = 0x01;
const MAP_PRIVATE = 0x02;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const MAP_NORESERVE = 0x4000;
// madvise(2), Linux 5.14 and 6.1.
const MADV_POPULATE_WRITE = 23;
const MADV_COLLAPSE = 25;

const hugePageBytes = BigInt(limits.hugePageBytes);
/** The largest that a processor's small pages are: a multiple of each. */
const pageBytes = 65_536n;

/** It has no huge page (ENOMEM), may not charge one (EBUSY), or takes no such advice for that file (EINVAL). */
const refusals = ["EBUSY", "EINVAL", "ENOMEM"] as const;
export type CollapseRefusal = (typeof refusals)[number];

export interface Collapsed {
  /** Chunks that are one huge page now, and chunks that stayed small. */
  readonly hugeChunks: number;
  readonly smallChunks: number;
  /** Why the kernel ended it before the last chunk. */
  readonly refusal: CollapseRefusal | undefined;
}

/**
 * Has the kernel give all pages of this process's own memory by one call, before they are touched: 64 MiB took 17 ms where their faults took
 * 30, each by two threads at once. What it does not give is given at the first touch. madvise(2), MADV_POPULATE_WRITE, Linux 5.14.
 */
export function populate(memory: Buffer): void {
  const begin = addressOf(memory);
  const from = (begin + pageBytes - 1n) & ~(pageBytes - 1n);
  const to = (begin + BigInt(memory.length)) & ~(pageBytes - 1n);
  if (to > from) library().symbols.madvise(from, to - from, MADV_POPULATE_WRITE);
}

/**
 * Makes each chunk of 2 MiB of `[byteOffset, byteOffset + byteSize)` of `fd`'s file, which is on a tmpfs and allocated there, one
 * huge page, as far as the kernel can. Whoever maps it keeps its bytes. A chunk that somebody is busy with stays small. The map is
 * of `PROT_NONE`: a file that is cut meanwhile cannot end this process. madvise(2), MADV_COLLAPSE.
 */
export function collapsePages(fd: number, byteOffset: number, byteSize: number): Collapsed {
  checkDescriptor(fd);
  const isWhole = byteOffset % limits.hugePageBytes === 0 && byteSize % limits.hugePageBytes === 0;
  assert(byteOffset >= 0 && byteSize > 0 && isWhole, "what is collapsed is whole chunks");
  const c = library();
  const length = BigInt(byteSize);
  // Only an address that is a multiple of a huge page's size can show one.
  const room = length + hugePageBytes;
  const start = c.symbols.mmap(0n, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0n);
  if (start === -1n) throw failureOf("mmap", readInt(c.errno));
  const reserved = BigInt.asUintN(64, start);
  try {
    const aligned = (reserved + hugePageBytes - 1n) & ~(hugePageBytes - 1n);
    const mapped = c.symbols.mmap(aligned, length, PROT_NONE, MAP_SHARED | MAP_FIXED, fd, BigInt(byteOffset));
    if (mapped === -1n) throw failureOf("mmap", readInt(c.errno));
    return collapseChunks(aligned, byteSize / limits.hugePageBytes);
  } finally {
    // Of a range that was mapped just now there is nothing to refuse.
    c.symbols.munmap(reserved, room);
  }
}

function collapseChunks(start: bigint, chunks: number): Collapsed {
  let hugeChunks = 0;
  let smallChunks = 0;
  for (let chunk = 0; chunk < chunks; chunk++) {
    const address = start + BigInt(chunk) * hugePageBytes;
    let errno = collapseChunk(address);
    // A page was on its way through one of the kernel's lists, which a moment later it is not.
    if (errno === osConstants.errno.EAGAIN) errno = collapseChunk(address);
    const refusal = refusals.find((code) => osConstants.errno[code] === errno);
    if (refusal !== undefined) return { hugeChunks, smallChunks, refusal };
    if (errno === 0) hugeChunks += 1;
    else smallChunks += 1;
  }
  return { hugeChunks, smallChunks, refusal: undefined };
}

/** @returns errno, or 0. */
function collapseChunk(address: bigint): number {
  const c = library();
  const result = c.symbols.madvise(address, hugePageBytes, MADV_COLLAPSE);
  return result === 0 ? 0 : readInt(c.errno);
}

/**
 * How many bytes of `[byteOffset, byteOffset + byteSize)` of `fd`'s file are in memory, by pages. The kernel tells the truth to who owns the
 * file or may write to it, and to anybody else that all of it is. The map is of `PROT_NONE`: a file that is cut meanwhile cannot end
 * this process. mincore(2).
 * @param byteOffset a multiple of the page's size.
 */
export function countResident(fd: number, byteOffset: number, byteSize: number, pageBytes: number): number {
  checkDescriptor(fd);
  assert(byteOffset >= 0 && byteOffset % pageBytes === 0 && byteSize > 0, "what is counted begins with a page");
  const c = library();
  const pages = Math.ceil(byteSize / pageBytes);
  const length = BigInt(pages * pageBytes);
  const start = c.symbols.mmap(0n, length, PROT_NONE, MAP_SHARED, fd, BigInt(byteOffset));
  if (start === -1n) throw failureOf("mmap", readInt(c.errno));
  const address = BigInt.asUintN(64, start);
  try {
    const found = Buffer.alloc(pages);
    const result = c.symbols.mincore(address, length, addressOf(found));
    if (result === -1) throw failureOf("mincore", readInt(c.errno));
    // Of each byte the lowest bit counts.
    const resident = found.reduce((count, byte) => count + (byte & 1), 0);
    return Math.min(resident * pageBytes, byteSize);
  } finally {
    c.symbols.munmap(address, length);
  }
}
