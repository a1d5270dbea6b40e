/** Memory without a name, as a test reaches it that may look into the server's process: by the descriptor that it has. */

import { readdirSync, readlinkSync } from "node:fs";

/** A path that opens the region's memory anew. @param pid whose descriptors are looked at: the test's own, or a server's. */
export function memfdPath({ id }: { readonly id: string }, pid: number | "self" = "self"): string {
  const path = findMemfd(id.slice("reg_".length), pid);
  if (path === undefined) throw new Error(`process ${pid} has no memfd of ${id}`);
  return path;
}

/** As `memfdPath`; undefined if the process has none. */
export function findMemfd(token: string, pid: number | "self" = "self"): string | undefined {
  const paths = readdirSync(`/proc/${pid}/fd`).map((fd) => `/proc/${pid}/fd/${fd}`);
  return paths.find((path) => linkOf(path)?.includes(`.${token}.`) === true);
}

/** A descriptor may have been closed since it was listed. */
function linkOf(path: string): string | undefined {
  try {
    const link = readlinkSync(path);
    return link.startsWith("/memfd:tensord.") ? link : undefined;
  } catch {
    return undefined;
  }
}
