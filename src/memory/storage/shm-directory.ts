/**
 * The shared directory itself, where it is one below a tmpfs that everybody may write: a pod's volume. Who makes it owns it, and
 * with its sticky bit nobody else renames or removes what is in it; so the server makes it, without root.
 */

import { chmodSync, mkdirSync, statfsSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { cannotOpen } from "./instance-directory.ts";

/** Open to the group, which may make files and takes none away; files in it are the group's (Kubernetes' fsGroup). */
const mode = 0o3770;
/** TMPFS_MAGIC of linux/magic.h. */
const tmpfsMagic = 0x01021994;

/**
 * Makes the directory if it is missing and the one above it is on a tmpfs. Elsewhere a path that is not there is a typing error,
 * and whoever opens it says so.
 * @throws TensordError `io-error` if it cannot be made.
 */
export function makeShmDirectory(path: string): void {
  const shown = resolve(path);
  if (!isOnTmpfs(dirname(shown))) return;
  // In a container /dev is a tmpfs, and this one is a mount that is missing.
  if (shown === "/dev/shm") return;
  // Sticky from birth: mkdir(2) takes that bit, and not the setgid one.
  const umask = process.umask(0);
  try {
    mkdirSync(shown, { mode });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return;
    throw cannotOpen("make", shown, error);
  } finally {
    process.umask(umask);
  }
  // A server killed before this has lost nothing: what it makes has its own group, as the directory has.
  chmodSync(shown, mode);
}

function isOnTmpfs(path: string): boolean {
  try {
    return statfsSync(path).type === tmpfsMagic;
  } catch {
    return false;
  }
}
