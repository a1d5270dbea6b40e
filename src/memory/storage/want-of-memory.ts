/** How a call says that a page did not come. */

/** ENOSPC of a file system that is full, ENOMEM of a machine that is. */
export function isForWantOfMemory(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === "ENOSPC" || code === "ENOMEM";
}
