/** Whether others on this machine need the memory that is kept ready, from what `/proc` says. */

import { parseMainSpace } from "../../../host/memory-space.ts";
import { readTextIfThere } from "../../../os/files.ts";
import { reserveLimits } from "./reserve-limits.ts";

/** What `/proc` says, as it is written there; undefined where it does not. */
export interface PressureTexts {
  /** `/proc/meminfo` (proc_meminfo(5)). */
  readonly meminfo: string | undefined;
  /** `/proc/pressure/memory` (Documentation/accounting/psi.rst). */
  readonly pressure: string | undefined;
}

export function readPressure(): PressureTexts {
  return { meminfo: readTextIfThere("/proc/meminfo"), pressure: readTextIfThere("/proc/pressure/memory") };
}

/**
 * Whether memory is to be given back, or must not be taken. The marks at which that begins and ends lie apart.
 * @param wasPressed what was said last.
 */
export function isPressed({ meminfo = "", pressure = "" }: PressureTexts, wasPressed: boolean): boolean {
  const { totalBytes, freeBytes } = parseMainSpace(meminfo);
  const stalled = parseStall(pressure);
  const availablePercent = wasPressed ? reserveLimits.calmAvailablePercent : reserveLimits.availablePercent;
  const stallPercent = wasPressed ? reserveLimits.calmStallPercent : reserveLimits.stallPercent;
  return freeBytes < (totalBytes / 100) * availablePercent || stalled >= stallPercent;
}

/** For how much of the last 10 seconds some task waited for memory, in percent; 0 where the kernel does not tell. */
export function parseStall(pressure: string): number {
  return Number(/^some avg10=(\d+(?:\.\d+)?) /m.exec(pressure)?.[1] ?? 0);
}
