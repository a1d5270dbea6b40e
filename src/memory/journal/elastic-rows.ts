/** Elastic pools, and the runs of pages in them, as rows of the journal. Pure but for the statements that it prepares. */

import type { Database, Statement } from "bun:sqlite";
import { isFlag, isNumber, isText, isToken, orNull, parseStored, type Shape } from "./stored.ts";

export interface ElasticPoolRow {
  readonly key: number;
  readonly token: string;
  readonly model: string;
  readonly deviceUuid: string;
  readonly virtualCapacity: number;
  readonly pageSize: number;
  readonly minimumBytes: number;
  readonly maximumBytes: number | null;
  readonly revision: number;
  readonly createdAt: number;
  readonly createdBy: string | null;
  /** Above the number of every page that anybody was told of. */
  readonly nextPage: number;
}

/** Places in pages. */
export interface ElasticRunRow {
  readonly firstPage: number;
  readonly index: number;
  readonly count: number;
  readonly evictable: boolean;
  /** The token of a session, or null. */
  readonly session: string | null;
  readonly mappedAt: number;
}

/** What is to be written of one pool, all of it or nothing. */
export interface ElasticChange {
  /** The pool as it is from now on; undefined leaves it as it is. */
  readonly pool?: ElasticPoolRow;
  readonly put?: readonly ElasticRunRow[];
  /** First pages of runs that are none any more; before `put`. */
  readonly drop?: readonly number[];
}

export interface ElasticContent {
  readonly pool: ElasticPoolRow;
  readonly runs: readonly ElasticRunRow[];
}

export const elasticSchema = `
  CREATE TABLE elastic_pools (key INTEGER PRIMARY KEY, record TEXT NOT NULL);
  CREATE TABLE elastic_runs (pool INTEGER NOT NULL, first_page INTEGER NOT NULL, record TEXT NOT NULL,
    PRIMARY KEY (pool, first_page)) WITHOUT ROWID;
`;

const poolShape: Shape<ElasticPoolRow> = {
  key: isNumber,
  token: isToken,
  model: isText,
  deviceUuid: isText,
  virtualCapacity: isNumber,
  pageSize: isNumber,
  minimumBytes: isNumber,
  maximumBytes: orNull(isNumber),
  revision: isNumber,
  createdAt: isNumber,
  createdBy: orNull(isText),
  nextPage: isNumber,
};

const runShape: Shape<ElasticRunRow> = {
  firstPage: isNumber,
  index: isNumber,
  count: isNumber,
  evictable: isFlag,
  session: orNull(isText),
  mappedAt: isNumber,
};

/** @throws JournalDamage */
export function readElastic(database: Database): ElasticContent[] {
  const pools = database.query("SELECT record FROM elastic_pools ORDER BY key").all() as { readonly record: string }[];
  const runs = database.query("SELECT record FROM elastic_runs WHERE pool = ? ORDER BY first_page");
  return pools.map(({ record }) => {
    const pool = parseStored(record, poolShape);
    const rows = runs.all(pool.key) as { readonly record: string }[];
    return { pool, runs: rows.map((row) => parseStored(row.record, runShape)) };
  });
}

export class ElasticRows {
  readonly #database: Database;
  readonly #putPool: Statement;
  readonly #putRun: Statement;
  readonly #dropRun: Statement;

  constructor(database: Database) {
    this.#database = database;
    this.#putPool = database.query("INSERT OR REPLACE INTO elastic_pools VALUES (?, ?)");
    this.#putRun = database.query("INSERT OR REPLACE INTO elastic_runs VALUES (?, ?, ?)");
    this.#dropRun = database.query("DELETE FROM elastic_runs WHERE pool = ? AND first_page = ?");
  }

  write(key: number, { pool, put = [], drop = [] }: ElasticChange): void {
    this.#database.transaction(() => {
      if (pool !== undefined) this.#putPool.run(key, JSON.stringify(pool));
      for (const firstPage of drop) this.#dropRun.run(key, firstPage);
      for (const run of put) this.#putRun.run(key, run.firstPage, JSON.stringify(run));
    })();
  }

  /** With all of its runs. */
  deletePool(key: number): void {
    this.#database.transaction(() => {
      this.#database.run("DELETE FROM elastic_runs WHERE pool = ?", [key]);
      this.#database.run("DELETE FROM elastic_pools WHERE key = ?", [key]);
    })();
  }
}
