/**
 * Version 3: versions of names, tensors in rows of their own that are written once, limits by pool, and what records lack
 * that were written before sessions, eviction, formats and hand-offs. It reads the old rows as they were and judges none:
 * what a newer rule would refuse in a request, such as a label, stays.
 */

import type { Database } from "bun:sqlite";
import type { Tensor } from "../layout/layout.ts";
import { Tensors } from "../layout/tensors.ts";
import { limits } from "../limits.ts";
import { hostPool } from "../naming.ts";
import { JournalDamage } from "./journal-failure.ts";
import { parseJson } from "./stored.ts";

const schema3 = `
  DROP INDEX region_names;
  ALTER TABLE regions ADD COLUMN version TEXT NOT NULL DEFAULT '';
  CREATE UNIQUE INDEX region_names ON regions (model, name, version) WHERE name IS NOT NULL;
  CREATE TABLE tensors (region INTEGER PRIMARY KEY, count INTEGER NOT NULL, list BLOB NOT NULL);
  ALTER TABLE models RENAME TO models_2;
  CREATE TABLE models (name TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
`;

interface RegionRow2 {
  readonly key: number;
  readonly owner: string;
  readonly record: string;
}

interface ModelRow2 {
  readonly name: string;
  readonly memory_limit_bytes: number | null;
  readonly revision: number;
  readonly created_at: number;
}

export function migrateTo3(database: Database): void {
  database.run(schema3);
  const insertTensors = database.query("INSERT INTO tensors VALUES (?, ?, ?)");
  const updateRegion = database.query("UPDATE regions SET owner = ?, record = ? WHERE key = ?");
  for (const { key, owner, record } of readAll<RegionRow2>(database, "SELECT key, owner, record FROM regions")) {
    const { tensors: list, ...rest } = parseJson(record) ?? {};
    const tensors = toTensors(list);
    const format = rest.dataOffset === 0 ? "raw" : "safetensors";
    insertTensors.run(key, tensors.count, tensors.bytes);
    updateRegion.run(toOwner(owner), JSON.stringify({ session: null, evictable: false, format, ...rest }), key);
  }
  const insertModel = database.query("INSERT INTO models VALUES (?, ?)");
  for (const row of readAll<ModelRow2>(database, "SELECT * FROM models_2")) insertModel.run(row.name, toModel(row));
  database.run("DROP TABLE models_2");
  const updateClaim = database.query("UPDATE claims SET record = ? WHERE token = ?");
  for (const { token, record } of readAll<{ token: string; record: string }>(database, "SELECT * FROM claims")) {
    updateClaim.run(JSON.stringify({ ...parseJson(record), version: "" }), token);
  }
}

/** All at once: what is read must not change under the reading. */
function readAll<Row>(database: Database, query: string): Row[] {
  return database.query(query).all() as Row[];
}

function toTensors(list: unknown): Tensors {
  try {
    return Tensors.of(list as readonly Tensor[]);
  } catch (cause) {
    throw new JournalDamage("a record has no usable tensors", { cause });
  }
}

function toOwner(text: string): string {
  const owner = parseJson(text);
  return owner?.kind === "linger" ? JSON.stringify({ handoffMs: limits.handoffDefaultMs, ...owner }) : text;
}

function toModel({ name, memory_limit_bytes: limitBytes, revision, created_at: createdAt }: ModelRow2): string {
  const ofPools = limitBytes === null ? [] : [{ pool: hostPool, limitBytes }];
  return JSON.stringify({ name, limits: ofPools, revision, createdAt });
}
