/** What this process tells the kernel of pages that it maps, and how many of them are in memory. */

import { accessSync, constants, readFileSync, statSync } from "node:fs";
import { TensordError } from "../errors.ts";
import { mappingFailed } from "./attach.ts";
import type { Attachment } from "./attachment.ts";
import { adviseOn, pageSize, residentPages } from "./libc.ts";

/** `sequential`, `random` and `normal`: in which order this process reads. `willneed` and `dontneed`: soon, or not again. */
export type Advice = "normal" | "sequential" | "random" | "willneed" | "dontneed";

/**
 * Advises the kernel on all that is mapped.
 * @throws TensordError `validation-failed` where private pages would be lost, `mapping-failed`, `closed`
 */
export function advisePages(attachment: Attachment, advice: Advice): void {
  const { region } = attachment.place;
  const { address, length } = attachment.range();
  const written = advice === "dontneed" ? privateBytes(address, length) : 0;
  if (written > 0) {
    const state = `${written} bytes were written to privately here, and would be lost`;
    throw new TensordError("validation-failed", `Cannot let go of the pages of region ${region}: ${state}`, {
      hint: "copy what is to stay, close the region, and attach it again",
    });
  }
  try {
    adviseOn(address, length, advice);
  } catch (cause) {
    throw mappingFailed(cause, `advise the kernel on region ${region}: ${String(cause)}`);
  }
}

/**
 * How many of the mapped bytes are in memory, by pages; null where the kernel does not tell this process.
 * @throws TensordError `mapping-failed`, `closed`
 */
export function residentBytes(attachment: Attachment): number | null {
  const { region, path } = attachment.place;
  if (path !== null && !isTold(path)) return null;
  const { address, length } = attachment.range();
  try {
    return Math.min(residentPages(address, length) * pageSize(), length);
  } catch (cause) {
    throw mappingFailed(cause, `count the resident pages of region ${region}: ${String(cause)}`);
  }
}

/** mincore(2) says of files of others that all of it is in memory. */
function isTold(path: string): boolean {
  try {
    const uid = process.geteuid?.();
    if (uid === 0 || statSync(path).uid === uid) return true;
    accessSync(path, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/** What of the range are pages of this process alone, as proc(5) tells in smaps. */
function privateBytes(address: bigint, length: number): number {
  const end = address + BigInt(length);
  let isInside = false;
  let found = 0;
  for (const line of readFileSync("/proc/self/smaps", "latin1").split("\n")) {
    const range = /^([0-9a-f]+)-([0-9a-f]+) /.exec(line);
    if (range !== null) isInside = BigInt(`0x${range[1]}`) < end && BigInt(`0x${range[2]}`) > address;
    else if (isInside) found += 1024 * Number(/^Anonymous: +(\d+) kB/.exec(line)?.[1] ?? 0);
  }
  return found;
}
