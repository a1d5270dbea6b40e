/** The mount that a path lies on, from what `/proc/self/mountinfo` says. Pure; reads nothing. */

import { unescapeOctal } from "./cgroup.ts";

export interface Mount {
  readonly mountPoint: string;
  /** The file system's type, such as `tmpfs`. */
  readonly type: string;
  /** Its own options, such as `size=65536k` and `huge=within_size`. */
  readonly options: readonly string[];
}

/**
 * The mount that `path`, absolute and without links, is seen on.
 * @param mountinfo lines of proc_pid_mountinfo(5): `id parent dev root point options [tags…] - type source super`.
 */
export function findMount(mountinfo: string, path: string): Mount | undefined {
  let found: Mount | undefined;
  for (const line of mountinfo.split("\n")) {
    const [before = "", after = ""] = line.split(" - ", 2);
    const mountPoint = unescapeOctal(before.split(" ")[4] ?? "");
    const [type = "", , options = ""] = after.split(" ");
    const isAbove = mountPoint === "/" || path === mountPoint || path.startsWith(`${mountPoint}/`);
    // Of several mounts on one point the last one is seen.
    if (type === "" || !mountPoint.startsWith("/") || !isAbove) continue;
    if (found === undefined || mountPoint.length >= found.mountPoint.length) {
      found = { mountPoint, type, options: options.split(",") };
    }
  }
  return found;
}
