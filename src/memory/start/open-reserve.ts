/** The reserve as this host and its operator want it. */

import { statfsSync } from "node:fs";
import { type HugePages, readCapabilities } from "../host/capabilities.ts";
import type { InstanceDirectory } from "../storage/instance-directory.ts";
import type { PromisedPages } from "../storage/shm/promised-pages.ts";
import { toDefaultReserve } from "../storage/shm/reserve/plan.ts";
import { Reserve } from "../storage/shm/reserve/reserve.ts";
import type { ReserveParts } from "../storage/shm/reserve/reserve-parts.ts";

export interface ReserveOptions extends Pick<ReserveParts, "readPressure" | "hugeAfterMs" | "nice" | "stopMs"> {
  /** What it may take; undefined leaves it to what all regions may take. */
  readonly settingBytes: number | undefined;
}

interface Place extends Pick<ReserveParts, "lanes" | "roomBytes" | "onStep" | "onWarning"> {
  readonly directory: InstanceDirectory;
  /** What regions are going to be written to, and is no longer free for it. */
  readonly promised: PromisedPages;
  /** What all regions may take. */
  readonly limitBytes: number;
}

/** None where files of the shared directory are no pages of memory, or are huge ones by themselves. */
export function openReserve(
  options: ReserveOptions | undefined,
  { directory, promised, lanes, limitBytes, roomBytes, onStep, onWarning }: Place,
): Reserve {
  const { fileSystem, hugePages } = readCapabilities(directory.shmDirectory).shm;
  const absence = toAbsence(directory.shmDirectory, fileSystem, hugePages);
  const isOffered = options !== undefined && absence === undefined;
  return new Reserve({
    budgetBytes: isOffered ? (options.settingBytes ?? toDefaultReserve(limitBytes)) : 0,
    pathOf: (name) => directory.path("new", name),
    absence,
    roomBytes,
    freeBytes: () => readFreeBytes(directory.shmPath) - promised.bytes,
    lanes,
    onStep,
    onWarning,
    readPressure: options?.readPressure,
    hugeAfterMs: options?.hugeAfterMs,
    nice: options?.nice,
    stopMs: options?.stopMs,
  });
}

/** Whether files of the shared directory are of huge pages by themselves, as far as they are whole ones. */
export function hasHugeFiles(shmDirectory: string): boolean {
  const { hugePages } = readCapabilities(shmDirectory).shm;
  return hugePages === "always" || hugePages === "within_size";
}

function toAbsence(path: string, fileSystem: string, hugePages: HugePages): string | undefined {
  if (fileSystem !== "tmpfs") return `${path} is no tmpfs`;
  return hugePages === "never" ? undefined : `files of ${path} are of huge pages by themselves (huge=${hugePages})`;
}

/** A tmpfs that is mounted with size=0 has no bound, and says 0. */
function readFreeBytes(path: string): number {
  const { blocks, bavail, bsize } = statfsSync(path);
  return blocks === 0 ? Number.MAX_SAFE_INTEGER : bavail * bsize;
}
