/** Numbers as a finding says them. */

import prettyBytes from "pretty-bytes";

export function inBytes(bytes: number): string {
  return prettyBytes(bytes, { binary: true });
}

/** `1 region`, `2 regions`. */
export function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

/** `part` of `whole` in per cent, rounded down. */
export function percentOf(part: number, whole: number): number {
  return Math.floor((100 * part) / whole);
}

/** The first of `all`, and how many more there are. */
export function listSome(all: readonly string[], limit: number): string {
  const rest = all.length - limit;
  return all.slice(0, limit).join("; ") + (rest > 0 ? `; and ${rest} more` : "");
}
