/** A run of pages in a pool's books, and what has them go. Plain records: what is done with them stands beside. */

import type { ElasticPool, LeavingRun, Run, UnmapReason } from "../../memory/state/elastic.ts";
import type { EvictablePages } from "../../memory/state/evictable.ts";
import type { Model } from "../../memory/state/region.ts";
import type { Span } from "./page-map.ts";

export interface RunFacts extends Span {
  readonly evictable: boolean;
  /** The token of the session with which it ends, or null. */
  readonly session: string | null;
  mappedAt: number;
}

/** What a run has to know of its pool. */
export interface RunPool extends ElasticPool {
  /** What the pools would have free without so many of its pages. */
  toFreeable(pages: number): number;
}

/** Runs that go at once: announced together, and freed as soon as no worker has a page of any. */
export interface Departure<Pool extends RunPool> {
  readonly runs: readonly ElasticRun<Pool>[];
  readonly reason: UnmapReason;
  readonly actor: string | undefined;
  readonly since: number;
  /** How many pages workers have still, each counted for each worker. */
  outstanding: number;
  /** From here on it cannot be undone. */
  isCommitted: boolean;
  isUndone: boolean;
  /** What it went wrong with, so that its pages stay. */
  failure: unknown;
  readonly onBytes: (byteSize: number) => void;
  /** To be called once: nobody has a page of it, or it is undone. */
  readonly settle: (outcome: "free" | "undone") => void;
  /** Resolves with the bytes that are free by it; 0 if it was undone. Never rejects. */
  readonly done: Promise<number>;
}

export class ElasticRun<Pool extends RunPool> implements Span, EvictablePages {
  readonly pool: Pool;
  index: number;
  count: number;
  readonly firstPage: number;
  readonly evictable: boolean;
  readonly session: string | null;
  mappedAt: number;
  lastUsedAt: number;
  /** Its pages are being made: nobody knows of it yet. */
  isComing = false;
  departure: Departure<Pool> | undefined;
  readonly #evict: (run: ElasticRun<Pool>, actor: string | undefined) => Promise<number>;

  constructor(
    pool: Pool,
    facts: RunFacts,
    evict: (run: ElasticRun<Pool>, actor: string | undefined) => Promise<number>,
  ) {
    this.pool = pool;
    this.index = facts.index;
    this.count = facts.count;
    this.firstPage = facts.firstPage;
    this.evictable = facts.evictable;
    this.session = facts.session;
    this.mappedAt = facts.mappedAt;
    this.lastUsedAt = facts.mappedAt;
    this.#evict = evict;
  }

  /** Its upper part, which it loses. */
  divide(upper: Span): ElasticRun<Pool> {
    const { evictable, session, mappedAt } = this;
    const other = new ElasticRun(this.pool, { ...upper, evictable, session, mappedAt }, this.#evict);
    other.lastUsedAt = this.lastUsedAt;
    return other;
  }

  get isMapped(): boolean {
    return !this.isComing && this.departure === undefined;
  }

  *pages(): Generator<number> {
    for (let each = 0; each < this.count; each++) yield this.firstPage + each;
  }

  get ownPool(): object {
    return this.pool;
  }

  get modelBooks(): Model {
    return this.pool.model;
  }

  get poolName(): string {
    return this.pool.deviceUuid;
  }

  get freeableBytes(): number {
    return this.pool.toFreeable(this.count);
  }

  get isLeaving(): boolean {
    return this.departure !== undefined;
  }

  evict(actor: string | undefined): Promise<number> {
    return this.departure?.done ?? this.#evict(this, actor);
  }

  /** As others are told of it. */
  toRun(): Run {
    const { pageSize } = this.pool;
    return {
      byteOffset: this.index * pageSize,
      byteSize: this.count * pageSize,
      firstPage: this.firstPage,
      state: this.isLeaving ? "leaving" : "mapped",
      evictable: this.evictable,
      session: this.session,
      mappedAt: this.mappedAt,
      lastUsedAt: this.lastUsedAt,
    };
  }

  toLeavingRun(takenBy: readonly number[]): LeavingRun {
    return { ...this.toRun(), since: this.departure?.since ?? 0, takenBy };
  }
}
