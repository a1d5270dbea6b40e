/** What a session's client maps, and which messages tell the server of it. Pure: nothing here sends. */

/** A mapping of this process, as the server is told of it. */
export interface ReportedMapping {
  readonly region: string;
  readonly isWritable: boolean;
  /** This process made the region, and uses it for nothing else. */
  readonly isMakers: boolean;
  /** Whether the server waits for its end; undefined, of a reference: nobody here knows. */
  readonly isHandOffs: boolean | undefined;
}

/** This process's mappings of one region: how many, and whether one of them is for writing. */
export interface Mappings {
  readonly count: number;
  readonly isWritable: boolean;
}

/** Without `maker` for a server that does not tell makers from consumers. */
type Who = { readonly maker?: boolean };
export type Report = Who & ({ readonly attach: string; readonly writable: boolean } | { readonly detach: string });

/** Mappings by their regions' ids, and by whether they are the maker's: JSON of both. */
export type Sums<Sum> = ReadonlyMap<string, Sum>;

const none: Mappings = { count: 0, isWritable: false };

function toKey({ region, isMakers }: ReportedMapping, tellsMakers: boolean): string {
  return JSON.stringify(tellsMakers ? [region, isMakers] : [region]);
}

export function countMappings(mapped: Iterable<ReportedMapping>, tellsMakers: boolean): Map<string, Mappings> {
  const sums = new Map<string, Mappings>();
  for (const mapping of mapped) {
    const key = toKey(mapping, tellsMakers);
    const known = sums.get(key) ?? none;
    sums.set(key, { count: known.count + 1, isWritable: known.isWritable || mapping.isWritable });
  }
  return sums;
}

/** How many came and went untold. By references, which nobody counts, one of a region is told. */
export function countPassed(ended: Iterable<ReportedMapping>, tellsMakers: boolean): Map<string, number> {
  const sums = new Map<string, number>();
  for (const mapping of ended) {
    const key = toKey(mapping, tellsMakers);
    const known = sums.get(key) ?? 0;
    sums.set(key, mapping.isHandOffs === true ? known + 1 : Math.max(known, 1));
  }
  return sums;
}

/** The messages after which a server that was told `told` knows `now`, and of each mapping that `passed`. */
export function toReports(
  told: Sums<Mappings>,
  now: Sums<Mappings>,
  passed: Sums<number> = new Map<string, number>(),
): Report[] {
  return [...new Set([...told.keys(), ...now.keys(), ...passed.keys()])].flatMap((key) =>
    reportsOf(key, told.get(key) ?? none, now.get(key) ?? none, passed.get(key) ?? 0),
  );
}

function reportsOf(key: string, before: Mappings, after: Mappings, passed: number): Report[] {
  const [region, maker] = JSON.parse(key) as [string, boolean?];
  const who: Who = maker === undefined ? {} : { maker };
  const detach = { detach: region, ...who };
  // The server takes a region for mapped for writing from the first mapping that is, until the last one of all is gone.
  const isOver = before.isWritable && !after.isWritable;
  const isNew = !before.isWritable && after.isWritable;
  const kept = isOver ? 0 : Math.min(before.count, isNew ? after.count - 1 : after.count);
  const past = Array<Report[]>(passed)
    .fill([{ attach: region, writable: false, ...who }, detach])
    .flat();
  const gone = Array<Report>(before.count - kept).fill(detach);
  const come = Array<Report>(after.count - kept).fill({ attach: region, writable: after.isWritable, ...who });
  // What stays or comes is told before what passes: as long as one is left, nobody has let go of it.
  return isOver ? [...gone, ...come, ...past] : isNew ? [...gone, ...come, ...past] : [...come, ...past, ...gone];
}
