/** Memory that no file system bounds, as the kernel tells of it: all of the machine's, and what is reserved as huge pages. */

import { listIfThere, readTextIfThere } from "../os/files.ts";

/** All sizes in bytes. */
export interface MemorySpace {
  readonly totalBytes: number;
  readonly freeBytes: number;
}

/** What could be taken without swapping (proc_meminfo(5), MemAvailable). No bound where /proc does not tell. */
export function readMainSpace(): MemorySpace {
  return parseMainSpace(readTextIfThere("/proc/meminfo") ?? "");
}

export function parseMainSpace(meminfo: string): MemorySpace {
  return { totalBytes: kilobytes(meminfo, "MemTotal"), freeBytes: kilobytes(meminfo, "MemAvailable") };
}

function kilobytes(meminfo: string, field: string): number {
  const found = new RegExp(`^${field}:\\s+(\\d+) kB$`, "m").exec(meminfo)?.[1];
  return found === undefined ? Number.MAX_SAFE_INTEGER : Number(found) * 1024;
}

const hugePagesPath = "/sys/kernel/mm/hugepages";

/** The sizes of huge pages that this kernel has, reserved or not. */
export function listHugePageBytes(): readonly number[] {
  return listIfThere(hugePagesPath).flatMap((name) => {
    const found = /^hugepages-(\d+)kB$/.exec(name)?.[1];
    return found === undefined ? [] : [Number(found) * 1024];
  });
}

/** Reserved pages of that size, and those that nobody has or was promised (Documentation/admin-guide/mm/hugetlbpage.rst). */
export function readHugeSpace(pageBytes: number): MemorySpace {
  const count = (file: string) =>
    Number(readTextIfThere(`${hugePagesPath}/hugepages-${pageBytes / 1024}kB/${file}`) ?? 0);
  const free = Math.max(0, count("free_hugepages") - count("resv_hugepages"));
  return { totalBytes: count("nr_hugepages") * pageBytes, freeBytes: free * pageBytes };
}
