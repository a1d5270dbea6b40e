/**
 * The books on disk: one SQLite database in the instance's own directory, so that it lives and dies with the memory it
 * describes. It stores rows and decides nothing; the order of writes is the operations'.
 */

import { Database, type Statement } from "bun:sqlite";
import { readdirSync, renameSync, statSync } from "node:fs";
import type { RegionRecord } from "../region.ts";
import type { SessionRecord } from "../sessions/session.ts";
import type { InstanceDirectory } from "../storage/instance-directory.ts";
import { Ballast } from "./ballast.ts";
import { isDamage, isFull, isOutOfMemory, translate } from "./journal-failure.ts";
import { type ClaimRow, type LeaseRow, type ModelRow, type RegionRow, toRecord, toRow } from "./journal-rows.ts";
import { migrate } from "./journal-schema.ts";

export class Journal implements Disposable {
  readonly #folder: string;
  readonly #database: Database;
  readonly #ballast: Ballast;
  readonly #insertRegion: Statement;
  readonly #updateRegion: Statement;
  readonly #deleteRegion: Statement;
  readonly #putModel: Statement;
  readonly #deleteModel: Statement;
  /**
   * True if no usable store was there, and until the start that found this out has adopted everything: what lies in the
   * keeper without a row is then adopted instead of drained.
   */
  readonly isAdopting: boolean;

  private constructor(folder: string, { database, ballast }: OpenDatabase) {
    this.#folder = folder;
    this.#database = database;
    this.#ballast = ballast;
    this.isAdopting = database.query("SELECT 1 FROM meta WHERE key = 'adopting'").get() !== null;
    this.#insertRegion = database.query("INSERT INTO regions VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
    this.#updateRegion = database.query(
      "UPDATE regions SET state = ?2, name = ?4, pending_name = ?5, reason = ?6, owner = ?7, record = ?8 WHERE key = ?1",
    );
    this.#deleteRegion = database.query("DELETE FROM regions WHERE key = ?");
    this.#putModel = database.query("INSERT OR REPLACE INTO models VALUES (?, ?, ?, ?)");
    this.#deleteModel = database.query("DELETE FROM models WHERE name = ?");
  }

  /** Opens the store of `directory`, or makes it. A damaged one is set aside, never deleted. */
  static open(directory: InstanceDirectory): Journal {
    const folder = directory.path("store");
    const ballast = new Ballast(`${folder}ballast`, folder);
    return new Journal(folder, openWhatIsThere(`${folder}tensord.sqlite`, ballast));
  }

  /** Where the kept events lie between an orderly stop and the next start. */
  get eventsPath(): string {
    return `${this.#folder}events`;
  }

  /** Counts this start; a client that sees another epoch knows that the server began anew. */
  raiseEpoch(): number {
    const row = this.#database.query("SELECT value FROM meta WHERE key = 'epoch'").get() as { value: string } | null;
    // Never below the clock: a store that was lost, or that could not be written, must not repeat an epoch.
    const epoch = Math.max(Number(row?.value ?? 0) + 1, Date.now());
    try {
      this.#freeing(() => this.#database.run("INSERT OR REPLACE INTO meta VALUES ('epoch', ?)", [String(epoch)]));
    } catch (error) {
      // Without a free page the start must not fail: it is what lets regions be deleted. The next epoch is later anyway.
      if (!isOutOfMemory(error)) throw error;
    }
    return epoch;
  }

  /**
   * A sequence number that no event of an earlier start has, nor any above it. At least the clock in microseconds, since
   * a store that was lost, or that could not be written, must not repeat one.
   */
  nextSequence(): number {
    const row = this.#database.query("SELECT value FROM meta WHERE key = 'sequence'").get() as { value: string } | null;
    return Math.max(Number(row?.value ?? 0), Date.now() * 1000);
  }

  /** Numbers below `end` may be in use from here on. @throws TensordError `out-of-shared-memory`. */
  reserveSequences(end: number): void {
    this.#freeing(() => this.#database.run("INSERT OR REPLACE INTO meta VALUES ('sequence', ?)", [String(end)]));
  }

  models(): ModelRow[] {
    return this.#database.query("SELECT * FROM models").all() as ModelRow[];
  }

  *regions(): Generator<RegionRecord> {
    const rows = this.#database.query("SELECT * FROM regions ORDER BY key").iterate() as Iterable<RegionRow>;
    for (const row of rows) yield toRecord(row);
  }

  /** @throws TensordError `out-of-shared-memory` if the file system has no page left for it. */
  insertRegion(record: RegionRecord): void {
    this.#charging(() => this.#insertRegion.run(...toRow(record)));
    this.#ballast.restore();
  }

  /** Enters a region that stands already; worth the ballast, because without its row it would be lost. */
  adoptRegion(record: RegionRecord): void {
    this.#freeing(() => this.#insertRegion.run(...toRow(record)));
  }

  /** Everything in the keeper has its row again. */
  endAdoption(): void {
    this.#freeing(() => this.#database.run("DELETE FROM meta WHERE key = 'adopting'"));
  }

  updateRegion(record: RegionRecord): void {
    this.#freeing(() => this.#updateRegion.run(...toRow(record)));
  }

  /** One region takes over another's name: both rows change, or none. */
  replaceRegion(replacement: RegionRecord, replaced: RegionRecord): void {
    const both = this.#database.transaction(() => {
      this.#updateRegion.run(...toRow(replaced));
      this.#updateRegion.run(...toRow(replacement));
    });
    this.#freeing(both);
  }

  deleteRegion(key: number): void {
    this.#freeing(() => this.#deleteRegion.run(key));
    this.#ballast.restore();
  }

  putModel(model: ModelRow): void {
    this.#charging(() => this.#putModel.run(model.name, model.memory_limit_bytes, model.revision, model.created_at));
  }

  deleteModel(name: string): void {
    this.#freeing(() => this.#deleteModel.run(name));
  }

  *sessions(): Generator<SessionRecord> {
    yield* this.#records<SessionRecord>("SELECT record FROM sessions ORDER BY key");
  }

  /** @throws TensordError `out-of-shared-memory`. */
  insertSession({ key, token, name, client, quotaBytes, ttlMs, createdAt }: SessionRecord): void {
    const record = JSON.stringify({ key, token, name, client, quotaBytes, ttlMs, createdAt });
    this.#charging(() => this.#database.run("INSERT INTO sessions VALUES (?, ?)", [key, record]));
  }

  deleteSession(key: number): void {
    this.#freeing(() => this.#database.run("DELETE FROM sessions WHERE key = ?", [key]));
  }

  *claims(): Generator<ClaimRow> {
    yield* this.#records<ClaimRow>("SELECT record FROM claims");
  }

  /** @throws TensordError `out-of-shared-memory`. */
  insertClaim(row: ClaimRow): void {
    this.#charging(() => this.#database.run("INSERT INTO claims VALUES (?, ?)", [row.token, JSON.stringify(row)]));
  }

  deleteClaim(token: string): void {
    this.#freeing(() => this.#database.run("DELETE FROM claims WHERE token = ?", [token]));
  }

  *leases(): Generator<LeaseRow> {
    yield* this.#records<LeaseRow>("SELECT record FROM leases");
  }

  /** @throws TensordError `out-of-shared-memory`. */
  insertLease(row: LeaseRow): void {
    this.#charging(() => this.#database.run("INSERT INTO leases VALUES (?, ?)", [row.token, JSON.stringify(row)]));
  }

  deleteLease(token: string): void {
    this.#freeing(() => this.#database.run("DELETE FROM leases WHERE token = ?", [token]));
  }

  *#records<Record>(query: string): Generator<Record> {
    const rows = this.#database.query(query).all() as { readonly record: string }[];
    for (const { record } of rows) yield JSON.parse(record);
  }

  #charging(write: () => void): void {
    try {
      write();
    } catch (error) {
      throw translate(error);
    }
  }

  /** A write that leads to free memory gets the ballast's pages when there are no others. */
  #freeing(write: () => void): void {
    for (;;) {
      try {
        return write();
      } catch (error) {
        if (!isFull(error) || !this.#ballast.giveUp()) throw translate(error);
      }
    }
  }

  /** What the database, its log and the ballast occupy. */
  byteSize(): number {
    const files = readdirSync(this.#folder).map((name) => statSync(this.#folder + name, { throwIfNoEntry: false }));
    return files.reduce((sum, file) => sum + (file?.blocks ?? 0) * 512, 0);
  }

  [Symbol.dispose](): void {
    this.#database.close();
  }
}

interface OpenDatabase {
  readonly database: Database;
  readonly ballast: Ballast;
}

function openWhatIsThere(path: string, ballast: Ballast): OpenDatabase {
  try {
    return openDatabase(path, ballast);
  } catch (error) {
    if (isFull(error) && ballast.giveUp()) return openWhatIsThere(path, ballast);
    if (!isDamage(error)) throw translate(error);
    // Its log belongs to the damaged database and must not be replayed into a new one.
    for (const suffix of ["", "-wal"]) renameIfThere(path + suffix, `${path}.damaged-${Date.now()}${suffix}`);
    return openDatabase(path, ballast);
  }
}

function openDatabase(path: string, ballast: Ballast): OpenDatabase {
  const database = new Database(path, { create: true, readwrite: true, strict: true });
  try {
    // The directory's lock lets one server in, so SQLite need not share; the kernel keeps the pages when we die, so it
    // need not sync. Temporary tables in files would lie outside the instance's directory.
    for (const pragma of [
      "locking_mode = EXCLUSIVE",
      "journal_mode = WAL",
      "synchronous = OFF",
      "temp_store = MEMORY",
      "wal_autocheckpoint = 256",
    ]) {
      database.run(`PRAGMA ${pragma}`);
    }
    migrate(database);
    ballast.restore();
    return { database, ballast };
  } catch (error) {
    database.close();
    throw error;
  }
}

function renameIfThere(from: string, to: string): void {
  try {
    renameSync(from, to);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}
