/** How a process that serves another ends with it, whatever ends that one. */

import assert from "node:assert/strict";
import { readInt } from "./ffi.ts";
import { failureOf, library } from "./libc.ts";

// prctl(2), <linux/prctl.h>.
const PR_SET_PDEATHSIG = 1;
const SIGKILL = 9;

/**
 * From now on the kernel kills this process when its parent dies, also in the middle of a call that never returns. prctl(2).
 * @returns whether the parent is there still: one that died before is not noticed.
 */
export function endWithParent(parent: number): boolean {
  assert(Number.isInteger(parent) && parent > 0, `not a process: ${parent}`);
  const c = library();
  if (c.symbols.prctl(PR_SET_PDEATHSIG, BigInt(SIGKILL)) !== 0) throw failureOf("prctl", readInt(c.errno));
  return process.ppid === parent;
}
