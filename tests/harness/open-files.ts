/** What a process has open. It may close any of that while it is looked at, and others of its threads open what they need. */

import { readdirSync, readlinkSync } from "node:fs";

/** What each descriptor is of, as the kernel calls it. */
export function descriptorsOf(pid: number | "self"): string[] {
  const folder = `/proc/${pid}/fd`;
  return readdirSync(folder).flatMap((fd) => {
    try {
      return readlinkSync(`${folder}/${fd}`);
    } catch {
      // Closed since it was listed, as that of this process' own listing is.
      return [];
    }
  });
}

/** Those of a file, or of what lies below a folder. */
export function openBelow(path: string, pid: number | "self" = "self"): string[] {
  return descriptorsOf(pid).filter((link) => link === path || link.startsWith(`${path}/`));
}
