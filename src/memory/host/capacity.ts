/**
 * How much memory the pool may use on this host, from numbers that others have read. It asks the system nothing.
 */

import assert from "node:assert/strict";
import { TensordError } from "../error.ts";
import { limits } from "../limits.ts";
import type { MemoryLimit } from "./cgroup.ts";

export interface CapacityInput {
  /** What the operator allows, if anything was said. */
  readonly settingBytes: number | undefined;
  /** Size of the whole tmpfs; 0 is one without a limit (tmpfs(5), `size=0`). */
  readonly tmpfsBytes: number;
  readonly memoryLimits: readonly MemoryLimit[];
}

export interface CapacityCandidate {
  /** As a sentence names it. */
  readonly source: string;
  /** What it leaves for the pool; 0 when its headroom takes all. */
  readonly bytes: number;
}

export interface GlobalLimit {
  /** The smallest candidate, in whole pages. */
  readonly limitBytes: number;
  /** Which candidate decided, in words. */
  readonly reason: string;
  readonly candidates: readonly CapacityCandidate[];
}

/**
 * The smallest of the setting, a share of the tmpfs, and each cgroup's maximum less a headroom: past that maximum the
 * kernel answers with SIGKILL and not with an error.
 * @throws TensordError `out-of-shared-memory` when what is left would not even hold the server's own journal, or when
 * nothing at all bounds the pool.
 */
export function globalLimit(input: CapacityInput): GlobalLimit {
  const { settingBytes, tmpfsBytes, memoryLimits } = input;
  const candidates: CapacityCandidate[] = [];
  if (settingBytes !== undefined) candidates.push({ source: "TENSORD_MEMORY_LIMIT_BYTES", bytes: settingBytes });
  if (tmpfsBytes > 0) {
    const source = `${limits.tmpfsPercent} % of the ${tmpfsBytes} bytes of the shared memory file system`;
    candidates.push({ source, bytes: percent(tmpfsBytes, limits.tmpfsPercent) });
  }
  for (const { path, maximumBytes } of memoryLimits) {
    const headroomBytes = Math.max(limits.cgroupHeadroomBytes, percent(maximumBytes, limits.cgroupHeadroomPercent));
    const source = `the ${maximumBytes} bytes in ${path}, less ${headroomBytes} of headroom`;
    candidates.push({ source, bytes: Math.max(0, maximumBytes - headroomBytes) });
  }
  const [first, ...others] = candidates;
  if (first === undefined) {
    throw new TensordError(
      "out-of-shared-memory",
      "Cannot bound the pool: there is neither a setting nor a size of the file system nor a cgroup limit, want one",
      { hint: "Set TENSORD_MEMORY_LIMIT_BYTES." },
    );
  }
  const smallest = others.reduce((least, other) => (other.bytes < least.bytes ? other : least), first);
  const limitBytes = smallest.bytes - (smallest.bytes % limits.dataAlignmentBytes);
  const reason = `${smallest.source}: ${limitBytes} bytes`;
  if (limitBytes <= limits.journalBytes) {
    throw new TensordError(
      "out-of-shared-memory",
      `Cannot start the pool: ${reason} are left for it, want more than the ${limits.journalBytes} of the journal`,
      {
        hint: "Raise what the sentence names: the setting, the size of the tmpfs (in a container --shm-size, in Kubernetes the emptyDir's sizeLimit), or the memory limit of the cgroup.",
        available_bytes: limitBytes,
        requested_bytes: limits.journalBytes,
        candidates,
      },
    );
  }
  return { limitBytes, reason, candidates };
}

/** What a file of `bytes` occupies on a tmpfs with pages of `pageSize` bytes, a power of two. */
export function roundUpToPage(bytes: number, pageSize: number): number {
  assert(Number.isSafeInteger(bytes) && bytes >= 0);
  assert(Number.isSafeInteger(pageSize) && pageSize > 0 && Number.isInteger(Math.log2(pageSize)));
  const rest = bytes % pageSize;
  return rest === 0 ? bytes : bytes - rest + pageSize;
}

/** Rounded down, and exact where `bytes * share` would pass what a number holds. */
function percent(bytes: number, share: number): number {
  const rest = bytes % 100;
  return ((bytes - rest) / 100) * share + Math.floor((rest * share) / 100);
}
