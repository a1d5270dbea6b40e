/** Mapping pages: room is made, each page created and kept, and only then told: all of them, or none. */

import { TensordError } from "../../memory/error.ts";
import { toSessionId } from "../../memory/naming.ts";
import { hasRoom, makeRoom } from "../../memory/regions/make-room.ts";
import { sessionNotFound } from "../../memory/state/books.ts";
import { idOfPool, type MapRequest, type Run } from "../../memory/state/elastic.ts";
import { idOfSession } from "../../memory/state/session.ts";
import type { Store } from "../../memory/state/store.ts";
import { type Departing, toRunRow } from "./departing.ts";
import type { PoolBooks, PoolRun } from "./pool-books.ts";
import { outOfRange, poolIsGone, toPages } from "./refusals.ts";
import { ElasticRun } from "./run.ts";

export interface Mapped {
  readonly run: Run;
  readonly sequence: number;
}

export class Mapping {
  readonly #store: Store;
  readonly #departing: Departing;

  constructor(store: Store, departing: Departing) {
    this.#store = store;
    this.#departing = departing;
  }

  /** @throws TensordError as `ElasticPools.map`. */
  async map(pool: PoolBooks, request: MapRequest, signal: AbortSignal): Promise<Mapped> {
    const store = this.#store;
    const deadline = performance.now() + request.deadlineMs;
    const stop = AbortSignal.any([signal, pool.closing.signal]);
    for (let hasTurn = false; ; hasTurn = true) {
      store.refuseIfStopping();
      this.#refuseGone(pool, stop);
      // Whatever was awaited, the session may have ended meanwhile.
      if (request.session !== null) store.books.session(idOfSession(request.session));
      store.storages.device(pool.deviceUuid);
      const { index, count } = findPlace(pool, request);
      const own = pool.toOwnLimit(count);
      const bytes = pool.toCharge(pool.physicalPages + count) - pool.chargedBytes;
      const { onFull, actor } = request;
      const charge = { model: pool.model, poolName: pool.deviceUuid, session: null, bytes, listBytes: 0, own };
      const room = { ...charge, onFull, deadline, hasTurn, actor };
      if (hasRoom(store, room)) return await this.#track(pool, this.#mapAt(pool, index, count, request, stop));
      await this.#makeRoom(pool, room, stop);
    }
  }

  async #makeRoom(pool: PoolBooks, room: Parameters<typeof makeRoom>[1], stop: AbortSignal): Promise<void> {
    try {
      await makeRoom(this.#store, room, stop);
    } catch (error) {
      if (pool.isClosed) throw poolIsGone(pool);
      throw error;
    }
  }

  #refuseGone(pool: PoolBooks, stop: AbortSignal): void {
    if (pool.isClosed) throw poolIsGone(pool);
    stop.throwIfAborted();
  }

  async #track<Value>(pool: PoolBooks, work: Promise<Value>): Promise<Value> {
    pool.coming.add(work);
    try {
      return await work;
    } finally {
      pool.coming.delete(work);
    }
  }

  async #mapAt(
    pool: PoolBooks,
    index: number,
    count: number,
    request: MapRequest,
    signal: AbortSignal,
  ): Promise<Mapped> {
    const store = this.#store;
    const firstPage = pool.nextPage;
    pool.nextPage += count;
    const session = request.session?.token ?? null;
    const facts = { index, count, firstPage, evictable: request.evictable, session, mappedAt: store.now() };
    const run = new ElasticRun(pool, facts, (one, actor) => this.#departing.evict(one, actor));
    run.isComing = true;
    pool.map.add(run);
    pool.physicalPages += count;
    pool.settleCharge(store.books);
    const made: number[] = [];
    try {
      for (const page of run.pages()) {
        const name = pool.toPageName(page);
        await pool.memory.create(name, pool.pageSize, signal);
        made.push(page);
        store.step("vmm.page-created");
        await pool.memory.keep(name);
        store.step("vmm.page-kept");
        this.#refuseGone(pool, signal);
        store.refuseIfStopping();
      }
      return this.#commit(pool, run);
    } catch (error) {
      await this.#undo(pool, run, made);
      throw pool.isClosed ? poolIsGone(pool) : error;
    }
  }

  /** One turn: row, books, event. */
  #commit(pool: PoolBooks, run: PoolRun): Mapped {
    const store = this.#store;
    if (run.session !== null && store.books.findSession(run.session)?.end !== null) {
      throw sessionNotFound(toSessionId(run.session));
    }
    run.mappedAt = store.now();
    run.lastUsedAt = run.mappedAt;
    store.journal.changeElastic(pool.key, { pool: pool.toRow(), put: [toRunRow(run)] });
    store.step("vmm.map-journaled");
    this.#departing.enter(run);
    const told = run.toRun();
    store.emit({ type: "tensord.vmm.mapped", elastic: pool, runs: [told], reason: "request" });
    store.onCharge(pool.model.name);
    return { run: told, sequence: store.events.last };
  }

  /** In reverse. Pages that were not made are charged no longer; one that is not given back is stuck. */
  async #undo(pool: PoolBooks, run: PoolRun, made: readonly number[]): Promise<void> {
    const store = this.#store;
    pool.map.remove(run);
    pool.physicalPages -= run.count - made.length;
    pool.settleCharge(store.books);
    for (const page of made.toReversed()) await this.#departing.freeUndone(pool, page);
    store.onCharge(pool.model.name);
  }
}

/** Where it is to lie, in pages. @throws TensordError `out-of-range`, `already-mapped`. */
function findPlace(pool: PoolBooks, { byteOffset, byteSize }: MapRequest): { index: number; count: number } {
  if (byteOffset === undefined) {
    const { count } = toPages(pool, { byteOffset: 0, byteSize }, "map");
    const index = pool.map.firstHole(count);
    if (index !== undefined) return { index, count };
    const largest = [...pool.map.holes()].reduce((most, hole) => Math.max(most, hole.count), 0) * pool.pageSize;
    throw outOfRange(
      pool,
      `Cannot map ${byteSize} bytes: the largest hole of the range has ${largest}`,
      { requested_bytes: byteSize, largest_free_bytes: largest },
      "Unmap what lies around it, compact the pool, or map less at once.",
    );
  }
  const place = toPages(pool, { byteOffset, byteSize }, "map");
  const there = pool.map.firstIn(place.index, place.count);
  if (there === undefined) return place;
  const at = Math.max(there.index, place.index) * pool.pageSize;
  const state = there.isComing ? "are being made" : there.isLeaving ? "are leaving" : "lie";
  throw new TensordError("already-mapped", `Cannot map ${byteSize} bytes at ${byteOffset}: pages ${state} at ${at}`, {
    pool: idOfPool(pool),
    byte_offset: at,
    byte_size: there.count * pool.pageSize,
    hint: "Map a range that is free: `free_runs` of the pool lists them. What is leaving is free once its workers let go.",
  });
}
