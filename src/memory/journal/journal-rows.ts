/** How regions, and what goes with them, look as rows of the journal. Pure; the way back is `journal-parse.ts`. */

import type { RegionRecord } from "./region-record.ts";

export interface ClaimRow {
  readonly token: string;
  readonly model: string;
  readonly name: string;
  readonly version: string;
  /** The session's token. */
  readonly session: string;
  readonly key: string | null;
  /** The token of the region that is to be replaced, or null. Rows from before there was such a thing have none. */
  readonly rebuilds: string | null;
}

export interface RequestedLeaseRow {
  /** Absent from rows of servers that listed a region's leases all at once. */
  readonly key?: number;
  readonly token: string;
  /** The region's token. */
  readonly region: string;
  readonly session: string | null;
  readonly ttlMs: number;
  /** Absent from rows of servers that knew no tokens. */
  readonly createdBy?: string | null;
}

export interface ModelRow {
  readonly name: string;
  /** What its regions may take of each pool; one that is not here has no limit. */
  readonly limits: readonly PoolLimit[];
  readonly revision: number;
  readonly createdAt: number;
}

export interface PoolLimit {
  readonly pool: string;
  readonly limitBytes: number;
}

export interface RegionRow {
  readonly key: number;
  readonly state: RegionRecord["state"];
  readonly model: string;
  readonly name: string | null;
  readonly pending_name: string | null;
  readonly reason: RegionRecord["reason"];
  readonly owner: string;
  readonly record: string;
  readonly version: string;
}

/** Tensors have rows of their own, which are written once: a change of state writes the small row. */
export interface TensorsRow {
  readonly region: number;
  readonly count: number;
  readonly list: Uint8Array;
}

export function toRow(
  record: RegionRecord,
): [number, string, string, string | null, string | null, string | null, string, string, string] {
  const { key, state, model, name, pendingName, reason, owner, version } = record;
  const stored = JSON.stringify(toStored(record));
  return [key, state, model, name, pendingName, reason, JSON.stringify(owner), stored, version];
}

export type StoredRegion = ReturnType<typeof toStored>;

/** The part of a record without columns of its own. Picked by name: a `Region` carries more than its record. */
function toStored(record: RegionRecord) {
  const {
    token,
    expiresAt,
    session,
    evictable,
    labels,
    revision,
    storageForm,
    identity,
    byteSize,
    format,
    dataOffset,
  } = record;
  const { checksum, stockWritable, createdAt, createdBy, sealedAt, formerName } = record;
  return {
    token,
    expiresAt,
    session,
    evictable,
    labels,
    revision,
    // As it is called since kinds had no forms.
    storageKind: storageForm,
    identity,
    byteSize,
    format,
    dataOffset,
    checksum,
    stockWritable,
    createdAt,
    createdBy,
    sealedAt,
    formerName,
  };
}
