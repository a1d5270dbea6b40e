/**
 * The books on disk: one SQLite database in the instance's own directory, so that it lives and dies with the memory it
 * describes. It stores rows and decides nothing; the order of writes is the operations'.
 */

import type { Database, Statement } from "bun:sqlite";
import { statSync } from "node:fs";
import { listDirectory } from "../os/files.ts";
import type { InstanceDirectory } from "../storage/instance-directory.ts";
import type { StorageForm } from "../storage/storage.ts";
import { TensorFiles } from "../storage/tensor-files.ts";
import { Ballast } from "./ballast.ts";
import { type ElasticChange, ElasticRows } from "./elastic-rows.ts";
import { type JournalContent, readContent } from "./journal-content.ts";
import { isFull, isOutOfMemory, translate } from "./journal-failure.ts";
import { type OpenDatabase, openDatabase } from "./journal-open.ts";
import { type ClaimRow, type ModelRow, type RequestedLeaseRow, toRow } from "./journal-rows.ts";
import type { RegionRecord } from "./region-record.ts";
import type { SessionRecord } from "./session-record.ts";

export class Journal implements Disposable {
  readonly #folder: string;
  readonly #database: Database;
  readonly #ballast: Ballast;
  /** The long lists of tensors, which have no place in a row. */
  readonly tensorFiles: TensorFiles;
  /** What the opening read, until it is asked for. */
  #opening: JournalContent | undefined;
  readonly #epoch: number;
  readonly #sequence: number;
  readonly #insertRegion: Statement;
  readonly #updateRegion: Statement;
  readonly #deleteRegion: Statement;
  readonly #insertTensors: Statement;
  readonly #deleteTensors: Statement;
  readonly #putModel: Statement;
  readonly #deleteModel: Statement;
  readonly #elastic: ElasticRows;
  /**
   * True if no usable journal was there, and until the start that found this out has adopted everything: what lies in the
   * keeper without a row is then adopted instead of drained.
   */
  readonly isAdopting: boolean;
  /** Frees pages that are nobody's yet, for a write that finds the file system full; false if there are none. */
  makeRoom: () => boolean = () => false;
  /** The damage for which an earlier journal was set aside just now, and where it lies; or undefined. */
  readonly damage: OpenDatabase["damage"];

  private constructor(
    folder: string,
    tensorFiles: TensorFiles,
    ballast: Ballast,
    { database, content, damage }: OpenDatabase,
  ) {
    this.#folder = folder;
    this.tensorFiles = tensorFiles;
    this.#database = database;
    this.#ballast = ballast;
    this.#opening = content;
    this.#epoch = content.epoch;
    this.#sequence = content.sequence;
    this.isAdopting = content.isAdopting;
    this.damage = damage;
    this.#insertRegion = database.query("INSERT INTO regions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)");
    this.#updateRegion = database.query(
      "UPDATE regions SET state = ?2, name = ?4, pending_name = ?5, reason = ?6, owner = ?7, record = ?8, version = ?9 WHERE key = ?1",
    );
    this.#deleteRegion = database.query("DELETE FROM regions WHERE key = ?");
    // What lies there under this key is of a region that the server died before it entered.
    this.#insertTensors = database.query("INSERT OR REPLACE INTO tensors VALUES (?, ?, ?)");
    this.#deleteTensors = database.query("DELETE FROM tensors WHERE region = ?");
    this.#putModel = database.query("INSERT OR REPLACE INTO models VALUES (?, ?)");
    this.#dropTensors(content.strayTensors);
    this.#deleteModel = database.query("DELETE FROM models WHERE name = ?");
    this.#elastic = new ElasticRows(database);
  }

  #dropTensors(keys: readonly number[]): void {
    try {
      for (const key of keys) this.#freeing(() => this.#deleteTensors.run(key));
    } catch (error) {
      // Without a free page the start must not fail: it is what lets regions be deleted. The next one drops the rest.
      if (!isOutOfMemory(error)) throw error;
    }
  }

  /** Opens the journal of `directory`, or makes it. A damaged one is set aside, never deleted. */
  static open(directory: InstanceDirectory): Journal {
    const folder = directory.path("store");
    const ballast = new Ballast(`${folder}ballast`, folder);
    const tensorFiles = new TensorFiles(directory);
    const opened = openDatabase(`${folder}tensord.sqlite`, ballast, tensorFiles);
    return new Journal(folder, tensorFiles, ballast, opened);
  }

  /** Where the kept events lie between an orderly stop and the next start. */
  get eventsPath(): string {
    return `${this.#folder}events`;
  }

  /** Counts this start; a client that sees another epoch knows that the server began anew. */
  raiseEpoch(): number {
    // Never below the clock: a journal that was lost, or that could not be written, must not repeat an epoch.
    const epoch = Math.max(this.#epoch + 1, Date.now());
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
   * a journal that was lost, or that could not be written, must not repeat one.
   */
  nextSequence(): number {
    return Math.max(this.#sequence, Date.now() * 1000);
  }

  /** Numbers below `end` may be in use from here on. @throws TensordError `out-of-shared-memory`. */
  reserveSequences(end: number): void {
    this.#freeing(() => this.#database.run("INSERT OR REPLACE INTO meta VALUES ('sequence', ?)", [String(end)]));
  }

  /** What the regions of an earlier server are made of. Before anything was read it knows; after that of none. */
  get formsAtOpening(): ReadonlySet<StorageForm> {
    return new Set(this.#opening?.regions.map(({ storageForm }) => storageForm));
  }

  /** The UUIDs of devices on which an earlier server had elastic pools. Before anything was read it knows; after that none. */
  get devicesAtOpening(): ReadonlySet<string> {
    return new Set(this.#opening?.elastic.map(({ pool }) => pool.deviceUuid));
  }

  /** All rows: at first what the opening has read, which is not held any longer; after that as they are now. */
  read(): JournalContent {
    const content = this.#opening ?? readContent(this.#database, this.tensorFiles);
    this.#opening = undefined;
    return content;
  }

  /**
   * @param ended regions as they end by it, and whose names it may have: in one transaction.
   * @throws TensordError `out-of-shared-memory` if the file system has no page left for it.
   */
  insertRegion(record: RegionRecord, ended: readonly RegionRecord[] = []): void {
    const insert = () => {
      for (const row of ended) this.#updateRegion.run(...toRow(row));
      this.#insert(record);
    };
    this.#charging(ended.length === 0 ? insert : this.#database.transaction(insert));
    this.#ballast.restore();
  }

  /** Enters a region that stands already; worth the ballast, because without its row it would be lost. */
  adoptRegion(record: RegionRecord): void {
    this.#freeing(() => this.#insert(record));
  }

  /** The tensors first: a row says that all of it is there. */
  #insert(record: RegionRecord): void {
    const { key, tensors } = record;
    this.#insertTensors.run(key, tensors.count, tensors.rowBytes);
    this.#insertRegion.run(...toRow(record));
  }

  /** Everything in the keeper has its row again. */
  endAdoption(): void {
    this.#freeing(() => this.#database.run("DELETE FROM meta WHERE key = 'adopting'"));
  }

  /** Changes all of these rows, in this order, or none. */
  updateRegions(records: readonly RegionRecord[]): void {
    const update = () => {
      for (const record of records) this.#updateRegion.run(...toRow(record));
    };
    this.#freeing(records.length === 1 ? update : this.#database.transaction(update));
  }

  deleteRegion(key: number): void {
    this.#freeing(() => this.#deleteRegion.run(key));
    this.#freeing(() => this.#deleteTensors.run(key));
    this.#ballast.restore();
  }

  putModel(model: ModelRow): void {
    this.#charging(() => this.#putModel.run(model.name, JSON.stringify(model)));
  }

  deleteModel(name: string): void {
    this.#freeing(() => this.#deleteModel.run(name));
  }

  /** @throws TensordError `out-of-shared-memory`. */
  insertSession({ key, token, name, client, quotaBytes, ttlMs, createdAt, createdBy }: SessionRecord): void {
    const record = JSON.stringify({ key, token, name, client, quotaBytes, ttlMs, createdAt, createdBy });
    this.#charging(() => this.#database.run("INSERT INTO sessions VALUES (?, ?)", [key, record]));
  }

  deleteSession(key: number): void {
    this.#freeing(() => this.#database.run("DELETE FROM sessions WHERE key = ?", [key]));
  }

  /** @throws TensordError `out-of-shared-memory`. */
  insertClaim(row: ClaimRow): void {
    this.#charging(() => this.#database.run("INSERT INTO claims VALUES (?, ?)", [row.token, JSON.stringify(row)]));
  }

  deleteClaim(token: string): void {
    this.#freeing(() => this.#database.run("DELETE FROM claims WHERE token = ?", [token]));
  }

  /** @throws TensordError `out-of-shared-memory`. */
  insertRequestedLease(row: RequestedLeaseRow): void {
    this.#charging(() => this.#database.run("INSERT INTO leases VALUES (?, ?)", [row.token, JSON.stringify(row)]));
  }

  deleteRequestedLease(token: string): void {
    this.#freeing(() => this.#database.run("DELETE FROM leases WHERE token = ?", [token]));
  }

  /** Writes what is new of an elastic pool, all of it or nothing. @throws TensordError `out-of-shared-memory`. */
  changeElastic(key: number, change: ElasticChange): void {
    this.#charging(() => this.#elastic.write(key, change));
  }

  /** The same where pages go by it, or stay where they are: worth the ballast. */
  freeElastic(key: number, change: ElasticChange): void {
    this.#freeing(() => this.#elastic.write(key, change));
    this.#ballast.restore();
  }

  deleteElasticPool(key: number): void {
    this.#freeing(() => this.#elastic.deletePool(key));
    this.#ballast.restore();
  }

  #charging(write: () => void): void {
    this.#write(write, this.makeRoom);
  }

  /** A write that leads to free memory gets the ballast's pages when there are no others. */
  #freeing(write: () => void): void {
    this.#write(write, () => this.makeRoom() || this.#ballast.giveUp());
  }

  #write(write: () => void, makeRoom: () => boolean): void {
    for (;;) {
      try {
        return write();
      } catch (error) {
        if (!isFull(error) || !makeRoom()) throw translate(error);
      }
    }
  }

  /** What the database, its log and the ballast occupy. Regions are charged for the files of their lists. */
  byteSize(): number {
    const files = listDirectory(this.#folder).map((name) => statSync(this.#folder + name, { throwIfNoEntry: false }));
    return files.reduce((sum, file) => sum + (file?.blocks ?? 0) * 512, 0);
  }

  [Symbol.dispose](): void {
    this.#database.close();
  }
}
