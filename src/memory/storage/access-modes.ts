/**
 * What the mode of a region's file says: who may open it how, by the sticky bit that it is sealed, and by the current mark that what the
 * server last said of its name holds still. So a client sees all three without asking.
 */

import { TensordError } from "../error.ts";
import type { Access } from "./storage.ts";

/** Modes by access. One that is not there cannot be had. */
export type AccessModes = Readonly<
  Record<Exclude<Access, "sealed-stock-writable">, number> & Partial<Record<"sealed-stock-writable", number>>
>;

/**
 * The current mark: it is there from the seal on, until the region is changed, or its name may mean another version. The right to
 * execute is its owner's alone, who could take it anyway, and nothing to a file of tensors.
 */
const currentMark = 0o100;

/** Of files with a name: whoever is of the group opens them. Sealed ones bear the current mark. */
export const namedModes: AccessModes = {
  open: 0o660,
  sealed: 0o1440 | currentMark,
  "sealed-stock-writable": 0o1660 | currentMark,
};

/** Of files without one: who is handed a descriptor has just that, and cannot open it anew under another uid. */
export const privateModes: AccessModes = { open: 0o600, sealed: 0o1400 };

/** @throws TensordError `validation-failed` if there is no such access. */
export function toMode(modes: AccessModes, access: Access): number {
  const mode = modes[access];
  if (mode !== undefined) return mode;
  throw new TensordError(
    "validation-failed",
    "Cannot leave the region writable for stock readers: it has no name by which they could open it",
    { hint: 'Leave "stock_writable" out, or create the region in "shm" storage and not "private".' },
  );
}

/** As `toMode`, without the current mark. */
export function toUnmarkedMode(modes: AccessModes, access: Access): number {
  return toMode(modes, access) & ~currentMark;
}

/** What the mode of a file says; undefined if it is none of these. */
export function toAccess(modes: AccessModes, mode: number): Access | undefined {
  const bits = mode & 0o7777;
  return (Object.keys(modes) as Access[]).find(
    (access) => modes[access] === bits || ((modes[access] ?? 0) & ~currentMark) === bits,
  );
}
