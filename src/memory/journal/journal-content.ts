/**
 * Everything that the database holds, read at once when it is opened. A page or a record that cannot be read is found
 * there, before anything is built on the others.
 */

import type { Database } from "bun:sqlite";
import type { TensorFiles } from "../storage/tensor-files.ts";
import { type ElasticContent, readElastic } from "./elastic-rows.ts";
import { JournalDamage } from "./journal-failure.ts";
import { parseClaim, parseModel, parseRegion, parseRequestedLease, parseSession } from "./journal-parse.ts";
import type { ClaimRow, ModelRow, RegionRow, RequestedLeaseRow, TensorsRow } from "./journal-rows.ts";
import type { RegionRecord } from "./region-record.ts";
import type { SessionRecord } from "./session-record.ts";

export interface JournalContent {
  readonly isAdopting: boolean;
  readonly epoch: number;
  readonly sequence: number;
  readonly models: ModelRow[];
  readonly sessions: SessionRecord[];
  readonly regions: RegionRecord[];
  /** Keys of tensors whose region the server died before it entered, or just after it went. */
  readonly strayTensors: number[];
  readonly claims: ClaimRow[];
  readonly leases: RequestedLeaseRow[];
  readonly elastic: ElasticContent[];
}

/** @throws JournalDamage, or what SQLite throws, if any of it is damaged. */
export function readContent(database: Database, files: TensorFiles): JournalContent {
  checkPages(database);
  const meta = database.query("SELECT key, value FROM meta").all() as {
    readonly key: string;
    readonly value: string;
  }[];
  const values = new Map(meta.map(({ key, value }) => [key, value]));
  const records = (query: string) =>
    (database.query(query).all() as { readonly record: string }[]).map(({ record }) => record);
  return {
    isAdopting: values.has("adopting"),
    epoch: toCount(values.get("epoch")),
    sequence: toCount(values.get("sequence")),
    models: records("SELECT record FROM models ORDER BY name").map(parseModel),
    sessions: records("SELECT record FROM sessions ORDER BY key").map(parseSession),
    ...readRegions(database, files),
    claims: records("SELECT record FROM claims").map(parseClaim),
    leases: records("SELECT record FROM leases").map(parseRequestedLease),
    elastic: readElastic(database),
  };
}

/** Both tables in one order, side by side: a region's tensors are written before it, and go after it. */
function readRegions(database: Database, files: TensorFiles): Pick<JournalContent, "regions" | "strayTensors"> {
  const rows = database.query("SELECT * FROM regions ORDER BY key").iterate() as IterableIterator<RegionRow>;
  const lists = database.query("SELECT * FROM tensors ORDER BY region").iterate() as Iterable<TensorsRow>;
  const regions: RegionRecord[] = [];
  const strayTensors: number[] = [];
  let row = rows.next().value;
  for (const list of lists) {
    if (row === undefined || list.region < row.key) {
      strayTensors.push(list.region);
      continue;
    }
    regions.push(parseRegion(row, list.region === row.key ? list : undefined, files));
    row = rows.next().value;
  }
  if (row !== undefined) parseRegion(row, undefined, files);
  return { regions, strayTensors };
}

/** Reading all rows would not see a broken index or list of free pages, on which a later write would fail. */
function checkPages(database: Database): void {
  const { integrity_check: found } = database.query("PRAGMA integrity_check(1)").get() as { integrity_check: string };
  if (found !== "ok") throw new JournalDamage(found);
}

function toCount(value = "0"): number {
  const count = Number(value);
  if (!Number.isSafeInteger(count)) throw new JournalDamage(`a count is no number: ${value}`);
  return count;
}
