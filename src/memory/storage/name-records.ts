/** Records that the kernel writes of a watched directory (inotify(7), struct inotify_event). Pure. */

import { parseFileName } from "../naming.ts";
import type { LostNamesReport } from "./lost-names.ts";

/** struct inotify_event, <sys/inotify.h>: int wd, uint32_t mask, uint32_t cookie, uint32_t len, char name[len]. */
const layout = { mask: 4, length: 12, name: 16 } as const;
const IN_Q_OVERFLOW = 0x4000;

/** The tokens of `instance`'s public names in whole records, each once, and whether the kernel dropped some before. */
export function findLost(records: Buffer, instance: string): LostNamesReport {
  const tokens = new Set<string>();
  let isOverflow = false;
  for (let at = 0; at < records.length; ) {
    const end = at + layout.name + records.readUInt32LE(at + layout.length);
    if ((records.readUInt32LE(at + layout.mask) & IN_Q_OVERFLOW) !== 0) isOverflow = true;
    const token = parseFileName(instance, textAt(records, at + layout.name, end));
    if (token !== undefined) tokens.add(token);
    at = end;
  }
  return { tokens: [...tokens], isOverflow };
}

/** A name is padded with NULs. Ours are ASCII, so others may be read wrongly. */
function textAt(records: Buffer, start: number, end: number): string {
  const nul = records.indexOf(0, start);
  return records.toString("latin1", start, nul === -1 ? end : Math.min(nul, end));
}
