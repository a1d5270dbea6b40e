/** What the mode of a region's file says of who may open it how. The sticky bit marks a sealed one, so that a client sees it. */

import { TensordError } from "../error.ts";
import type { Access } from "./storage.ts";

/** Modes by access. One that is not there cannot be had. */
export type AccessModes = Readonly<
  Record<Exclude<Access, "sealed-stock-writable">, number> & Partial<Record<"sealed-stock-writable", number>>
>;

/** Of files with a name: whoever is of the group opens them. */
export const namedModes: AccessModes = { open: 0o660, sealed: 0o1440, "sealed-stock-writable": 0o1660 };

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

/** What the mode of a file says; undefined if it is none of these. */
export function toAccess(modes: AccessModes, mode: number): Access | undefined {
  return (Object.keys(modes) as Access[]).find((access) => modes[access] === (mode & 0o7777));
}
