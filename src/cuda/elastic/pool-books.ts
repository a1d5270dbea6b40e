/**
 * What is true of one pool now: its map, who has which page, what leaves, what is owed, and what all of it is charged. Synchronous; nothing here calls a
 * driver, writes a row or tells anybody.
 */

import type { ElasticPoolRow } from "../../memory/journal/elastic-rows.ts";
import type { Books } from "../../memory/state/books.ts";
import { idOfPool, type PageRange } from "../../memory/state/elastic.ts";
import type { OwnLimit } from "../../memory/state/quota.ts";
import type { Model } from "../../memory/state/region.ts";
import type { DevicePages, PageName } from "../device-pages.ts";
import { PageMap } from "./page-map.ts";
import type { Departure, ElasticRun, RunPool } from "./run.ts";
import type { ElasticWorker } from "./worker.ts";

export type PoolRun = ElasticRun<PoolBooks>;
export type PoolDeparture = Departure<PoolBooks>;
export type PoolMember = ElasticWorker<PoolBooks>;

/** A page in no map that is charged still. */
export interface OwedInBooks {
  readonly page: number;
  readonly since: number;
  readonly isStuck: boolean;
  reason: string;
  retryMs: number;
}

export class PoolBooks implements RunPool {
  readonly key: number;
  readonly token: string;
  readonly model: Model;
  readonly deviceUuid: string;
  readonly virtualCapacity: number;
  readonly pageSize: number;
  minimumBytes: number;
  maximumBytes: number | null;
  revision: number;
  readonly createdAt: number;
  readonly createdBy: string | null;
  nextPage: number;

  readonly memory: DevicePages;
  /** The lease file, on which each worker has locked the byte of its slot. */
  readonly leaseFd: number;
  readonly map: PageMap<PoolRun>;
  /** The run of each page that lies in the map. */
  readonly runOf = new Map<number, PoolRun>();
  readonly workers = new Map<number, PoolMember>();
  /** How many workers have a page; of one that none has there is nothing. */
  readonly takers = new Map<number, number>();
  readonly departures = new Set<PoolDeparture>();
  /** What gives pages back now; none of it rejects. */
  readonly releasing = new Set<Promise<unknown>>();
  readonly owed = new Map<number, OwedInBooks>();
  /** Requests that make pages now. */
  readonly coming = new Set<Promise<unknown>>();
  /** Aborts when the pool is deleted. */
  readonly closing = new AbortController();
  /** Pages that there are of the driver's, in the map or out of it, those that are being made among them. */
  physicalPages = 0;
  mappedPages = 0;
  runCount = 0;
  chargedBytes = 0;

  constructor(row: ElasticPoolRow, model: Model, memory: DevicePages, leaseFd: number) {
    this.key = row.key;
    this.token = row.token;
    this.model = model;
    this.deviceUuid = row.deviceUuid;
    this.virtualCapacity = row.virtualCapacity;
    this.pageSize = row.pageSize;
    this.minimumBytes = row.minimumBytes;
    this.maximumBytes = row.maximumBytes;
    this.revision = row.revision;
    this.createdAt = row.createdAt;
    this.createdBy = row.createdBy;
    this.nextPage = row.nextPage;
    this.memory = memory;
    this.leaseFd = leaseFd;
    this.map = new PageMap(row.virtualCapacity / row.pageSize);
  }

  toRow(): ElasticPoolRow {
    const { key, token, model, deviceUuid, virtualCapacity, pageSize, minimumBytes, maximumBytes } = this;
    const { revision, createdAt, createdBy, nextPage } = this;
    return {
      key,
      token,
      model: model.name,
      deviceUuid,
      virtualCapacity,
      pageSize,
      minimumBytes,
      maximumBytes,
      revision,
      createdAt,
      createdBy,
      nextPage,
    };
  }

  toPageName(page: number): PageName {
    return { pool: this.token, page };
  }

  get isClosed(): boolean {
    return this.closing.signal.aborted;
  }

  get physicalBytes(): number {
    return this.physicalPages * this.pageSize;
  }

  /** What is to be charged for so many pages: at least the minimum, as long as the pool is there. */
  toCharge(pages: number): number {
    return Math.max(pages * this.pageSize, this.isClosed ? 0 : this.minimumBytes);
  }

  /** Charges what there is now. @returns how much more that is than before. */
  settleCharge(books: Books): number {
    const charge = this.toCharge(this.physicalPages);
    const growth = charge - this.chargedBytes;
    this.chargedBytes = charge;
    if (growth !== 0) books.charge(this.model, this.deviceUuid, growth);
    return growth;
  }

  /** What the pools would have free without so many of its pages. */
  toFreeable(pages: number): number {
    return this.toCharge(this.physicalPages) - this.toCharge(Math.max(0, this.physicalPages - pages));
  }

  /** Its maximum as a bound of so many further pages; undefined without one. */
  toOwnLimit(pages: number): OwnLimit | undefined {
    const { maximumBytes } = this;
    if (maximumBytes === null) return undefined;
    const pool = this;
    return {
      ownPool: this,
      whose: `elastic pool ${idOfPool(this)}`,
      requestedBytes: pages * this.pageSize,
      get limitBytes() {
        return pool.maximumBytes ?? Number.POSITIVE_INFINITY;
      },
      get freeBytes() {
        return Math.max(0, this.limitBytes - pool.physicalBytes);
      },
    };
  }

  /** Enters a run whose pages are there: from here on workers may take them. */
  enter(run: PoolRun): void {
    run.isComing = false;
    for (const page of run.pages()) this.runOf.set(page, run);
    this.mappedPages += run.count;
    this.runCount += 1;
  }

  /** Takes a run that leaves out of the map. Its pages are there still. */
  withdraw(run: PoolRun): void {
    this.map.remove(run);
    for (const page of run.pages()) this.runOf.delete(page);
  }

  /** Counts a run that lay in one piece as its two parts. */
  enterPart(upper: PoolRun): void {
    for (const page of upper.pages()) this.runOf.set(page, upper);
    if (upper.isMapped) this.runCount += 1;
  }

  beginDeparture(departure: PoolDeparture): void {
    this.departures.add(departure);
    for (const run of departure.runs) {
      run.departure = departure;
      this.mappedPages -= run.count;
      this.runCount -= 1;
      for (const page of run.pages()) departure.outstanding += this.takers.get(page) ?? 0;
    }
  }

  undoDeparture(departure: PoolDeparture): void {
    this.departures.delete(departure);
    for (const run of departure.runs) {
      run.departure = undefined;
      this.mappedPages += run.count;
      this.runCount += 1;
    }
  }

  /**
   * Has it in the books that a worker has a page that is in the map. One that leaves already is waited for, then.
   * @returns whether it had not before.
   */
  addTaken(worker: PoolMember, page: number): boolean {
    if (worker.taken.has(page)) return false;
    worker.taken.add(page);
    this.takers.set(page, (this.takers.get(page) ?? 0) + 1);
    const departure = this.runOf.get(page)?.departure;
    if (departure !== undefined) departure.outstanding += 1;
    return true;
  }

  /** @returns the departure that nobody keeps any more by it, if there is one. */
  removeTaken(worker: PoolMember, page: number): PoolDeparture | undefined {
    if (!worker.taken.delete(page)) return undefined;
    const takers = (this.takers.get(page) ?? 0) - 1;
    if (takers > 0) this.takers.set(page, takers);
    else this.takers.delete(page);
    const departure = this.runOf.get(page)?.departure;
    if (departure === undefined) return undefined;
    departure.outstanding -= 1;
    return departure.outstanding === 0 ? departure : undefined;
  }

  /** Takes a worker out of the books. @returns the departures that nobody keeps any more by it. */
  removeWorker(worker: PoolMember): PoolDeparture[] {
    worker.isGone = true;
    worker.isConnected = false;
    this.workers.delete(worker.slot);
    return [...worker.taken].flatMap((page) => this.removeTaken(worker, page) ?? []);
  }
}

/** Those of `pages` that lie in a range, however long ranges are. */
export function within(pages: ReadonlySet<number>, ranges: readonly PageRange[]): Set<number> {
  const found = new Set<number>();
  for (const [first, count] of ranges) {
    if (count > pages.size) {
      for (const page of pages) if (page >= first && page < first + count) found.add(page);
    } else {
      for (let page = first; page < first + count; page++) if (pages.has(page)) found.add(page);
    }
  }
  return found;
}
