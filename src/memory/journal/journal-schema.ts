/** The journal's tables, version by version. An older one is brought forward; a newer one is refused. */

import type { Database } from "bun:sqlite";
import { TensordError } from "../error.ts";
import { elasticSchema } from "./elastic-rows.ts";
import { migrateTo3 } from "./journal-schema-3.ts";

/**
 * `name` is held by one region of a model at most. What a query never asks for is JSON in `record`: a row with few
 * columns is the cheap end (`bench/`).
 */
const schema1 = `
  CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
  CREATE TABLE models (name TEXT PRIMARY KEY, memory_limit_bytes INTEGER, revision INTEGER NOT NULL,
    created_at INTEGER NOT NULL) WITHOUT ROWID;
  CREATE TABLE regions (key INTEGER PRIMARY KEY, state TEXT NOT NULL, model TEXT NOT NULL, name TEXT, pending_name TEXT,
    reason TEXT, owner TEXT NOT NULL, record TEXT NOT NULL);
  CREATE UNIQUE INDEX region_names ON regions (model, name) WHERE name IS NOT NULL;
`;

/** Version 2: sessions, their claims, and leases by request. `key` ascends; the rest is JSON. */
const schema2 = `
  CREATE TABLE sessions (key INTEGER PRIMARY KEY, record TEXT NOT NULL);
  CREATE TABLE claims (token TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
  CREATE TABLE leases (token TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
`;

/** What each version does to the one before; an older journal is brought forward through all of them. */
const migrations: readonly ((database: Database) => void)[] = [
  (database) => database.run(schema1),
  (database) => database.run(schema2),
  migrateTo3,
  // Version 4: elastic pools, and the pages in them.
  (database) => database.run(elasticSchema),
];
const schemaVersion = migrations.length;

/** Brings the schema forward, in one transaction. @throws JournalDamage if what there is cannot be read. */
export function migrate(database: Database): void {
  const { user_version: version } = database.query("PRAGMA user_version").get() as { user_version: number };
  if (version > schemaVersion) {
    throw new TensordError(
      "io-error",
      `Cannot open the journal: its schema is version ${version}, want at most ${schemaVersion}`,
      { hint: "A newer tensord wrote it: start that one, or purge the instance." },
    );
  }
  if (version === schemaVersion) {
    database.query("SELECT count(*) FROM sqlite_schema").get();
    return;
  }
  database.transaction(() => {
    for (const addition of migrations.slice(version)) addition(database);
    // In the same transaction: a start that dies before it has adopted everything must leave the rest to the next one.
    if (version === 0) database.run("INSERT INTO meta VALUES ('adopting', '1')");
    database.run(`PRAGMA user_version = ${schemaVersion}`);
  })();
}
