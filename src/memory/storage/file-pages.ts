/** Where the bytes of a region's file are, in memory or not, and what the kernel is told of them: by descriptor, in windows. */

import { accessSync, constants, fstatSync, fsync, statfsSync } from "node:fs";
import { promisify } from "node:util";
import { limits } from "../limits.ts";
import type { PageAdvice } from "../os/libc-files.ts";
import type { Lane } from "./lane.ts";

const sync = promisify(fsync);

/** File systems that are memory, by the number that statfs(2) has of them: tmpfs, ramfs, hugetlbfs (<linux/magic.h>). */
const memory: ReadonlySet<number> = new Set([0x0102_1994, 0x8584_58f6, 0x9584_58f6]);

/** How many of the first `byteSize` bytes are in memory; null where the kernel does not tell this process. */
export async function countResidentBytes(fd: number, byteSize: number, lane: Lane): Promise<number | null> {
  if (!isTold(fd)) return null;
  // Of a file system that has no blocks it is the size of a page (fs/libfs.c, simple_statfs).
  const pageBytes = statfsSync("/proc").bsize;
  let resident = 0n;
  for (const window of toWindows(byteSize)) {
    resident += await lane.run({ kind: "resident", fd, ...window, pageBytes });
  }
  return Number(resident);
}

export async function advisePages(fd: number, byteSize: number, advice: PageAdvice, lane: Lane): Promise<void> {
  for (const window of toWindows(byteSize)) await lane.run({ kind: "advise", fd, ...window, advice });
}

/** @returns whether the file is on a device now that keeps it without power. */
export async function flushFile(fd: number): Promise<boolean> {
  // In a thread of the runtime's: a disk takes its time, and no lane of ours.
  await sync(fd);
  return !memory.has(statfsSync(`/proc/self/fd/${fd}`).type >>> 0);
}

/** mincore(2) says of files of others that all of it is in memory. */
function isTold(fd: number): boolean {
  const uid = process.geteuid?.() ?? 0;
  if (uid === 0 || fstatSync(fd).uid === uid) return true;
  try {
    accessSync(`/proc/self/fd/${fd}`, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

function* toWindows(byteSize: number): Generator<{ readonly byteOffset: number; readonly byteSize: number }> {
  for (let byteOffset = 0; byteOffset < byteSize; byteOffset += limits.adviseWindowBytes) {
    yield { byteOffset, byteSize: Math.min(limits.adviseWindowBytes, byteSize - byteOffset) };
  }
}
