/** Where a file is mapped: at an address at which large pages of it are mapped whole. */

import * as libc from "./libc.ts";

/** What one entry of a page table's middle level maps, on x86-64 and on arm64 with pages of 4 KiB. */
const largePageBytes = 2 * 2 ** 20;
const large = BigInt(largePageBytes);

/** Where the large page begins in which a map was put that had to be moved; 0 is no wish. */
let lastPlace = 0n;

/**
 * As `mmap`, at an address that lies in its large page as `byteOffset` does in the file's. A range smaller than one, and one for
 * which there is no such address, is anywhere. @throws SystemError
 */
export function mapPlaced(length: number, prot: number, flags: number, fd: number, byteOffset: number): bigint {
  if (length < largePageBytes) return libc.mmap(0n, length, prot, flags, fd, byteOffset);
  const shift = BigInt(byteOffset % largePageBytes);
  // Where the last one was it is often free again, and then one call does; the kernel takes it for a wish.
  const anywhere = libc.mmap(lastPlace + shift, length, prot, flags, fd, byteOffset);
  if (anywhere % large === shift) return anywhere;
  const pages = Math.ceil(length / libc.pageSize()) * libc.pageSize();
  const around = pages + largePageBytes;
  const reserved = reserve(around);
  if (reserved === undefined) return anywhere;
  const place = reserved + ((shift - (reserved % large) + large) % large);
  try {
    libc.mmap(place, length, prot, flags | libc.MAP_FIXED, fd, byteOffset);
  } catch {
    libc.munmap(reserved, around);
    return anywhere;
  }
  libc.munmap(anywhere, pages);
  const before = Number(place - reserved);
  if (before > 0) libc.munmap(reserved, before);
  libc.munmap(place + BigInt(pages), around - before - pages);
  lastPlace = place - shift;
  return place;
}

/** @returns undefined if there is no room for so much more: `ulimit -v`, `ulimit -l` in a locked address space, vm.max_map_count */
function reserve(length: number): bigint | undefined {
  const flags = libc.MAP_PRIVATE | libc.MAP_ANONYMOUS | libc.MAP_NORESERVE;
  try {
    return libc.mmap(0n, length, libc.PROT_NONE, flags, -1, 0);
  } catch {
    return undefined;
  }
}
