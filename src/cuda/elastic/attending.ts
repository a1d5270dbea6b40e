/** What workers of a pool ask: to be attached, for pages, and to be rid of them. */

import { closeSync } from "node:fs";
import { TensordError } from "../../memory/error.ts";
import {
  type Attached,
  type AttachRequest,
  idOfPool,
  type PageRange,
  type Run,
  type Taken,
} from "../../memory/state/elastic.ts";
import type { Store } from "../../memory/state/store.ts";
import type { Departing } from "./departing.ts";
import { type PoolBooks, type PoolMember, within } from "./pool-books.ts";
import { inUse, poolIsGone } from "./refusals.ts";
import { ElasticWorker, isSlotLocked, takeSlot } from "./worker.ts";

export class Attending {
  readonly #store: Store;
  readonly #departing: Departing;

  constructor(store: Store, departing: Departing) {
    this.#store = store;
    this.#departing = departing;
  }

  /** @throws TensordError as `ElasticPools.attachWorker`. */
  attach(pool: PoolBooks, request: AttachRequest): Attached {
    if (pool.isClosed) throw poolIsGone(pool);
    this.#departing.reap(pool);
    if (request.slot !== undefined) return this.#attachAgain(pool, request.slot, request);
    const { slot, fd: slotFd } = takeSlot(pool);
    const worker = new ElasticWorker(pool, slot);
    worker.connect(request);
    pool.workers.set(slot, worker);
    return { worker, slotFd, ...this.refresh(pool) };
  }

  /** What it does not name it has no longer: while it had no connection it may have unmapped pages. */
  #attachAgain(pool: PoolBooks, slot: number, request: AttachRequest): Attached {
    const worker = pool.workers.get(slot);
    if (worker?.isConnected === true) throw inUse(pool, `take slot ${slot} of`, [worker]);
    if (worker === undefined || !isSlotLocked(pool, slot)) {
      throw new TensordError(
        "lease-not-found",
        `Cannot attach to slot ${slot} of elastic pool ${idOfPool(pool)}: nobody has locked it`,
        { pool: idOfPool(pool), hint: "Unmap everything, and attach without a slot." },
      );
    }
    const has = within(worker.taken, request.taken);
    for (const page of [...worker.taken]) if (!has.has(page)) this.#departing.letGo(worker, page);
    worker.connect(request);
    return { worker, slotFd: undefined, ...this.refresh(pool) };
  }

  /** What is mapped, now. */
  refresh({ map }: PoolBooks): { readonly runs: readonly Run[]; readonly sequence: number } {
    const runs = map.runs.filter((run) => run.isMapped).map((run) => run.toRun());
    return { runs, sequence: this.#store.events.last };
  }

  /** @throws TensordError as `ElasticPools.take`. */
  async take(worker: PoolMember, ranges: readonly PageRange[]): Promise<Taken> {
    const { pool } = worker;
    if (worker.isGone) throw poolIsGone(pool);
    const pages: number[] = [];
    const gone: number[] = [];
    // While descriptors are made nothing of this goes, whatever becomes of the worker.
    const hand = new ElasticWorker(pool, -1);
    for (const [first, count] of ranges) {
      for (let page = first; page < first + count; page++) {
        const run = pool.runOf.get(page);
        if (run?.isMapped !== true) {
          gone.push(page);
          continue;
        }
        pages.push(page);
        pool.addTaken(hand, page);
        run.lastUsedAt = this.#store.now();
        if (run.evictable) this.#store.books.touchPages(run);
      }
    }
    const descriptors: number[] = [];
    let fresh: readonly number[] = [];
    try {
      for (const page of pages) descriptors.push(await pool.memory.export(pool.toPageName(page)));
      if (worker.isGone) throw poolIsGone(pool);
      // In the books before it is on its way: nothing goes that somebody may map.
      fresh = pages.filter((page) => !worker.taken.has(page));
      for (const page of fresh) pool.addTaken(worker, page);
    } catch (error) {
      for (const fd of descriptors) closeSync(fd);
      throw error;
    } finally {
      for (const page of pages) this.#departing.letGo(hand, page);
    }
    const takeBack = () => {
      for (const page of fresh) this.#departing.letGo(worker, page);
    };
    return { pages, gone, descriptors, takeBack };
  }

  letGo(worker: PoolMember, ranges: readonly PageRange[], sequence: number): void {
    for (const page of within(worker.taken, ranges)) this.#departing.letGo(worker, page);
    worker.acknowledged = Math.max(worker.acknowledged, sequence);
  }

  /** What it has let go of stays locked until it closes its slot: nobody else gets that before. */
  leave(worker: PoolMember): void {
    if (!worker.isGone) this.#departing.removeWorker(worker);
  }

  disconnected(worker: PoolMember): void {
    if (worker.isGone) return;
    worker.isConnected = false;
    this.#departing.look(worker.pool);
  }
}
