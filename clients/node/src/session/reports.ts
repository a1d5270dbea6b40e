/** What a session's client maps, and which messages tell the server of it. Pure: nothing here sends. */

/** A mapping of this process, as the server is told of it. */
export interface ReportedMapping {
  readonly region: string;
  readonly isWritable: boolean;
}

/** This process's mappings of one region: how many, and whether one of them is for writing. */
export interface Mappings {
  readonly count: number;
  readonly isWritable: boolean;
}

export type Report = { readonly attach: string; readonly writable: boolean } | { readonly detach: string };

const none: Mappings = { count: 0, isWritable: false };

/** Mappings by their regions' ids. */
export function countMappings(mapped: Iterable<ReportedMapping>): Map<string, Mappings> {
  const sums = new Map<string, Mappings>();
  for (const { region, isWritable } of mapped) {
    const known = sums.get(region) ?? none;
    sums.set(region, { count: known.count + 1, isWritable: known.isWritable || isWritable });
  }
  return sums;
}

/** The messages after which a server that was told `told` knows `now`. */
export function toReports(told: ReadonlyMap<string, Mappings>, now: ReadonlyMap<string, Mappings>): Report[] {
  return [...new Set([...told.keys(), ...now.keys()])].flatMap((region) =>
    reportsOf(region, told.get(region) ?? none, now.get(region) ?? none),
  );
}

function reportsOf(region: string, before: Mappings, after: Mappings): Report[] {
  // The server takes a region for mapped for writing from the first mapping that is, until the last one of all is gone.
  const isOver = before.isWritable && !after.isWritable;
  const isNew = !before.isWritable && after.isWritable;
  const kept = isOver ? 0 : Math.min(before.count, isNew ? after.count - 1 : after.count);
  const detach = Array<Report>(before.count - kept).fill({ detach: region });
  const attach = Array<Report>(after.count - kept).fill({ attach: region, writable: after.isWritable });
  return [...detach, ...attach];
}
