/** The seam to C for memory without a name: memfd_create(2), and the seals of such a file. As `libc.ts`, which binds them. */

import { library, SystemError } from "./libc.ts";

// <linux/memfd.h>
const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
// <linux/fcntl.h>
const F_ADD_SEALS = 1033;
export const F_SEAL_SHRINK = 2;
export const F_SEAL_GROW = 4;
export const F_SEAL_WRITE = 8;

/** memfd_create(2), of no bytes yet. @returns the descriptor @throws SystemError */
export function createMemfd(name: string): number {
  const { koffi, memfd_create } = library();
  const fd = Number(memfd_create(Buffer.from(`${name}\0`), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (fd < 0) throw new SystemError("memfd_create", koffi.errno());
  return fd;
}

/** fcntl(2) with `F_ADD_SEALS`. @throws SystemError `EBUSY` to `F_SEAL_WRITE` while it is mapped for writing */
export function addFileSeals(fd: number, seals: number): void {
  const { koffi, fcntl_number } = library();
  if (fcntl_number(fd, F_ADD_SEALS, seals) === -1) throw new SystemError("fcntl", koffi.errno());
}
