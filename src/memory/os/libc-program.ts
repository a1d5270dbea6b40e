/**
 * The part of `libc.ts` about the pages of this program's own files that are mapped into it: the runtime's code and constants, of which
 * a start needs far more than what comes after it.
 */

import { readFileSync } from "node:fs";
import { withSpare } from "./descriptors.ts";
import { library } from "./libc.ts";

// madvise(2), <asm-generic/mman-common.h>.
const MADV_DONTNEED = 4;

export interface Mapping {
  readonly address: bigint;
  readonly byteSize: bigint;
  /** As `r-xp`. */
  readonly permissions: string;
  /** Of its file; 0 where it has none. */
  readonly inode: number;
  /** In memory, and of these what is this process's alone. */
  readonly residentBytes: number;
  readonly anonymousBytes: number;
}

/** Reads the text of /proc/PID/smaps (proc(5)): a line for a mapping, and under it one for each count of kilobytes. */
export function parseMappings(smaps: string): Mapping[] {
  return smaps.split(/\n(?=[0-9a-f]+-[0-9a-f]+ )/).flatMap((text) => {
    const [, start, end, permissions, inode] = /^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+)/.exec(text) ?? [];
    if (permissions === undefined) return [];
    const bytesOf = (count: string) => Number(new RegExp(`^${count}: +(\\d+) kB$`, "m").exec(text)?.[1]) * 1024;
    const address = BigInt(`0x${start}`);
    const byteSize = BigInt(`0x${end}`) - address;
    const counts = { residentBytes: bytesOf("Rss"), anonymousBytes: bytesOf("Anonymous") };
    return [{ address, byteSize, permissions, inode: Number(inode), ...counts }];
  });
}

/**
 * Takes pages out of this process that are the same in a file: mapped privately, not to be written to, and never changed, as the
 * loader changes those with addresses. Whoever touches one gets it back, from the kernel's cache while it is there. What is locked
 * in memory stays. One mapping in a turn of the event loop, each 1 to 3 ms. madvise(2), MADV_DONTNEED.
 */
export async function dropProgramPages(): Promise<void> {
  const c = library();
  for (const mapping of parseMappings(withSpare(() => readFileSync("/proc/self/smaps", "utf8")))) {
    const { address, byteSize, permissions, inode, residentBytes, anonymousBytes } = mapping;
    if (!/^r-[x-]p$/.test(permissions) || inode === 0 || residentBytes === 0 || anonymousBytes > 0) continue;
    await Bun.sleep(0);
    // EINVAL says that it is locked, ENOMEM that it is gone.
    c.symbols.madvise(address, byteSize, MADV_DONTNEED);
  }
}
