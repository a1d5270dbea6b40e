/** The part of `libc.ts` about files that are others': opened below a directory and nowhere else, and read without being kept. */

import assert from "node:assert/strict";
import { constants } from "node:fs";
import { addressOf, readInt } from "./ffi.ts";
import { checkDescriptor, failureOf, library } from "./libc.ts";

// openat2(2), <linux/openat2.h>; the call's number is the same on x86-64 and arm64, <asm-generic/unistd.h>.
const SYS_openat2 = 437n;
const RESOLVE_NO_MAGICLINKS = 0x02n;
const RESOLVE_BENEATH = 0x08n;
// open(2), <bits/fcntl-linux.h>: what node:fs has no name for.
const O_CLOEXEC = 0o2000000;

/** struct open_how of <linux/openat2.h>: three __u64. */
const openHowLayout = { byteSize: 24, flags: 0, mode: 8, resolve: 16 } as const;

// posix_fadvise(2), <linux/fadvise.h>.
const advices = { willneed: 3, dontneed: 4 } as const;
/** That a range is read soon, or that the kernel's copy of it is not needed. */
export type PageAdvice = keyof typeof advices;

/**
 * Opens a file for reading that lies below `directory`, wherever links on the way lead: one that leads out of it is refused (EXDEV), as
 * are links of /proc (ELOOP). A FIFO is not waited for. The caller closes it. openat2(2), Linux 5.6.
 * @param path relative to the directory, without NUL.
 * @throws SystemError
 */
export function openBeneath(directory: number, path: string): number {
  checkDescriptor(directory);
  assert(!path.includes("\0"), "not a path: it has a NUL");
  const how = Buffer.alloc(openHowLayout.byteSize);
  const flags = BigInt(constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY | O_CLOEXEC);
  how.writeBigUInt64LE(flags, openHowLayout.flags);
  how.writeBigUInt64LE(RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS, openHowLayout.resolve);
  const text = Buffer.from(`${path}\0`);
  // A copy of its own: a pooled one shares its memory.
  const name = Buffer.alloc(text.length);
  name.set(text);
  const c = library();
  const size = BigInt(openHowLayout.byteSize);
  const fd = c.symbols.syscall(SYS_openat2, BigInt(directory), addressOf(name), addressOf(how), size);
  if (fd === -1n) throw failureOf("openat2", readInt(c.errno));
  return Number(fd);
}

/** Has the kernel let go of its copy of a range that was read, unless others map it. */
export function dropCached(fd: number, byteOffset: number, byteSize: number): void {
  adviseOn(fd, byteOffset, byteSize, "dontneed");
}

/**
 * Has the kernel read a range of the file ahead, or let go of its copy of it, as far as it is written and nobody maps it. Of a file that is
 * memory it does nothing. posix_fadvise(2), which returns its errno.
 */
export function adviseOn(fd: number, byteOffset: number, byteSize: number, advice: PageAdvice): void {
  checkDescriptor(fd);
  const errno = library().symbols.posix_fadvise(fd, BigInt(byteOffset), BigInt(byteSize), advices[advice]);
  if (errno !== 0) throw failureOf("posix_fadvise", errno);
}
