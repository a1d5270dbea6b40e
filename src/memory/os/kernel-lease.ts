/**
 * Leases as the kernel keeps them: read locks of open file descriptions at two fixed bytes far past any content. The
 * server only asks; a lease begins with a client's lock and ends with its last mapping. `docs/protocol.md` specifies it.
 */

import { isLocked } from "./libc.ts";

/** Locked by whoever maps the region. */
export const leaseByte = 2n ** 62n;
/** Locked as well by whoever maps it for writing. */
export const writerByte = 2n ** 62n + 2n ** 61n;

/** Whether any process maps the region open at `fd`. 0.2 µs; takes nothing, disturbs nobody. */
export function hasLease(fd: number): boolean {
  return isLocked(fd, leaseByte, 1n);
}

/** Whether any process maps the region open at `fd` for writing. */
export function hasWriter(fd: number): boolean {
  return isLocked(fd, writerByte, 1n);
}
