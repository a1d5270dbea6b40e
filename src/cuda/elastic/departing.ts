/**
 * How pages go: announced, let go of by whoever has them, out of the rows, and only then given back to the driver. Until the rows say so all of it can be
 * undone; what the driver does not take back after that is owed, and tried again.
 */

import { TensordError } from "../../memory/error.ts";
import type { ElasticRunRow } from "../../memory/journal/elastic-rows.ts";
import { limits } from "../../memory/limits.ts";
import { Agenda } from "../../memory/state/agenda.ts";
import { idOfPool, type UnmapReason } from "../../memory/state/elastic.ts";
import type { Store } from "../../memory/state/store.ts";
import type { OwedInBooks, PoolBooks, PoolDeparture, PoolMember, PoolRun } from "./pool-books.ts";
import { thresholds } from "./thresholds.ts";
import { isSlotLocked } from "./worker.ts";

export interface Announcement {
  readonly reason: UnmapReason;
  readonly actor: string | undefined;
  readonly onBytes?: ((byteSize: number) => void) | undefined;
}

export class Departing implements Disposable {
  readonly #store: Store;
  readonly #ofSessions = new Map<string, Set<PoolRun>>();
  readonly #retries = new Agenda<readonly [PoolBooks, OwedInBooks]>(limits.drainPollSlice, ([pool, owed]) =>
    this.#keepTrack(pool, this.#retry(pool, owed)),
  );
  readonly #looks = new Map<PoolBooks, Timer>();
  #isStopped = false;

  constructor(store: Store) {
    this.#store = store;
  }

  /** Has a run that workers may take found by all that may end it. */
  enter(run: PoolRun): void {
    run.pool.enter(run);
    this.#index(run);
  }

  #index(run: PoolRun): void {
    if (run.evictable) this.#store.books.touchPages(run);
    if (run.session === null) return;
    const runs = this.#ofSessions.get(run.session) ?? new Set();
    this.#ofSessions.set(run.session, runs.add(run));
  }

  #forget(run: PoolRun): void {
    this.#store.books.removePages(run);
    if (run.session === null) return;
    const runs = this.#ofSessions.get(run.session);
    runs?.delete(run);
    if (runs?.size === 0) this.#ofSessions.delete(run.session);
  }

  /**
   * All runs in a range, those that reach over its ends cut there; their rows first.
   * @throws TensordError `out-of-shared-memory`.
   */
  isolate(pool: PoolBooks, index: number, count: number): PoolRun[] {
    const ends = [index, index + count];
    const across = new Set(ends.flatMap((end) => findAcross(pool, end) ?? []));
    if (across.size > 0) {
      this.#store.journal.freeElastic(pool.key, { put: [...across].flatMap((run) => toParts(run, ends)) });
    }
    for (const end of ends) {
      const parts = pool.map.cut(end, (run, upper) => run.divide(upper));
      if (parts === undefined) continue;
      pool.enterPart(parts[1]);
      this.#index(parts[1]);
    }
    return [...pool.map.in(index, count)];
  }

  /** From here on nothing is announced any more: what would leave stays, and its next server sees to it. */
  stop(): void {
    this.#isStopped = true;
  }

  /** Has a run go that may be evicted. @returns the bytes that are free by it. */
  async evict(run: PoolRun, actor: string | undefined): Promise<number> {
    if (this.#isStopped) return 0;
    return await this.announce(run.pool, [run], { reason: "evicted", actor }).done;
  }

  /** Has the runs of a session go. */
  endSession(token: string, actor: string | undefined): void {
    if (this.#isStopped) return;
    const leaving = [...(this.#ofSessions.get(token) ?? [])].filter((run) => run.isMapped);
    const byPool = Map.groupBy(leaving, ({ pool }) => pool);
    for (const [pool, runs] of byPool) this.announceEach(pool, runs, { reason: "session", actor });
  }

  /** Tells that runs go, each as soon as nobody has it. */
  announceEach(pool: PoolBooks, runs: readonly PoolRun[], why: Announcement): PoolDeparture[] {
    const departures = runs.map((run) => this.#begin(pool, [run], why));
    this.#tell(pool, runs, why);
    for (const departure of departures) this.settleIfFree(departure);
    this.look(pool);
    return departures;
  }

  /** Tells that runs go, all of them as soon as nobody has any. */
  announce(pool: PoolBooks, runs: readonly PoolRun[], why: Announcement): PoolDeparture {
    const departure = this.#begin(pool, runs, why);
    this.#tell(pool, runs, why);
    this.settleIfFree(departure);
    this.look(pool);
    return departure;
  }

  #tell(pool: PoolBooks, runs: readonly PoolRun[], { reason, actor }: Announcement): void {
    const told = runs.map((run) => run.toRun());
    this.#store.emit({ type: "tensord.vmm.unmapped", elastic: pool, runs: told, reason, actor });
    this.#store.step("vmm.announced");
  }

  #begin(
    pool: PoolBooks,
    runs: readonly PoolRun[],
    { reason, actor, onBytes = () => {} }: Announcement,
  ): PoolDeparture {
    const { promise, resolve: settle } = Promise.withResolvers<"free" | "undone">();
    const departure: PoolDeparture = {
      runs,
      reason,
      actor,
      since: this.#store.now(),
      outstanding: 0,
      isCommitted: false,
      isUndone: false,
      failure: undefined,
      onBytes,
      settle,
      done: promise.then((outcome) => (outcome === "free" ? this.#release(pool, departure) : 0)),
    };
    pool.beginDeparture(departure);
    this.#keepTrack(pool, departure.done);
    return departure;
  }

  #keepTrack(pool: PoolBooks, work: Promise<unknown>): void {
    pool.releasing.add(work);
    void work.finally(() => pool.releasing.delete(work));
  }

  settleIfFree(departure: PoolDeparture): void {
    if (departure.outstanding > 0 || departure.isCommitted) return;
    departure.isCommitted = true;
    departure.settle("free");
  }

  /** Has its pages stay, under the same numbers, unless they go already. @returns whether they stay. */
  undo(pool: PoolBooks, departure: PoolDeparture): boolean {
    if (departure.isCommitted) return false;
    departure.isCommitted = true;
    departure.isUndone = true;
    this.#stay(pool, departure);
    departure.settle("undone");
    return true;
  }

  #stay(pool: PoolBooks, departure: PoolDeparture): void {
    pool.undoDeparture(departure);
    const runs = departure.runs.map((run) => run.toRun());
    this.#store.emit({ type: "tensord.vmm.mapped", elastic: pool, runs, reason: "undone" });
  }

  /** Whoever makes room waits for that, as for any memory that is being freed. */
  async #release(pool: PoolBooks, departure: PoolDeparture): Promise<number> {
    const { freeing } = this.#store;
    const work = this.#commit(pool, departure);
    freeing.add(work);
    try {
      return await work;
    } finally {
      freeing.delete(work);
    }
  }

  /** The rows first: what the server dies over after that, its next start frees. */
  async #commit(pool: PoolBooks, departure: PoolDeparture): Promise<number> {
    const { runs, onBytes } = departure;
    try {
      this.#store.journal.freeElastic(pool.key, { drop: runs.map(({ firstPage }) => firstPage) });
    } catch (error) {
      departure.failure = error;
      this.#stay(pool, departure);
      this.#store.warn(`Cannot unmap pages of elastic pool ${idOfPool(pool)}: they stay`, error);
      return 0;
    }
    this.#store.step("vmm.unmap-journaled");
    pool.departures.delete(departure);
    for (const run of runs) pool.withdraw(run);
    let freedBytes = 0;
    let silence: TensordError | undefined;
    for (const run of runs) {
      for (const page of run.pages()) {
        // A driver that does not answer is waited for once, and not page by page.
        const failure = silence ?? (await this.#tryFree(pool, page));
        if (failure === undefined) freedBytes += pool.pageSize;
        else this.#owe(pool, page, false, failure);
        if (failure instanceof TensordError && failure.code === "deadline-exceeded") silence = failure;
        onBytes(pool.pageSize);
      }
      this.#forget(run);
    }
    return freedBytes;
  }

  /** Gives back a page of a mapping that is undone. One that fails is stuck from then on. */
  async freeUndone(pool: PoolBooks, page: number): Promise<void> {
    const failure = await this.#tryFree(pool, page);
    if (failure !== undefined) this.#owe(pool, page, true, failure);
  }

  /** @returns what it failed with. */
  async #tryFree(pool: PoolBooks, page: number): Promise<unknown> {
    try {
      await pool.memory.free(pool.toPageName(page));
    } catch (error) {
      return error;
    }
    this.#discharge(pool);
    this.#store.step("vmm.page-freed");
    return undefined;
  }

  #discharge(pool: PoolBooks): void {
    pool.physicalPages -= 1;
    if (pool.settleCharge(this.#store.books) !== 0) this.#store.onCharge(pool.model.name);
  }

  #owe(pool: PoolBooks, page: number, isStuck: boolean, error: unknown): void {
    const since = this.#store.now();
    const owed = { page, since, isStuck, reason: toReason(error), retryMs: thresholds.retryMs };
    pool.owed.set(page, owed);
    this.#retries.schedule([pool, owed], since + owed.retryMs);
    this.#store.warn(`Cannot free page ${page} of elastic pool ${idOfPool(pool)} yet`, error);
  }

  async #retry(pool: PoolBooks, owed: OwedInBooks): Promise<void> {
    const failure = await this.#tryFree(pool, owed.page);
    if (failure === undefined) {
      pool.owed.delete(owed.page);
      return;
    }
    owed.reason = toReason(failure);
    owed.retryMs = Math.min(2 * owed.retryMs, thresholds.retryMaxMs);
    this.#retries.schedule([pool, owed], this.#store.now() + owed.retryMs);
  }

  /** A worker has let go of a page. */
  letGo(worker: PoolMember, page: number): void {
    const departure = worker.pool.removeTaken(worker, page);
    if (departure !== undefined) this.settleIfFree(departure);
  }

  /** A worker is dead, or has left. */
  removeWorker(worker: PoolMember): void {
    for (const departure of worker.pool.removeWorker(worker)) this.settleIfFree(departure);
  }

  /** Takes those out of the books who are dead or have left: whoever holds no slot maps nothing, also before its connection has ended. */
  reap(pool: PoolBooks): void {
    for (const worker of [...pool.workers.values()]) {
      if (!isSlotLocked(pool, worker.slot)) this.removeWorker(worker);
    }
  }

  /** Takes the dead out, and looks again as long as something waits for one whose connection has ended. */
  look(pool: PoolBooks, delayMs: number = thresholds.lookMs): void {
    this.reap(pool);
    clearTimeout(this.#looks.get(pool));
    this.#looks.delete(pool);
    const isWaiting = [...pool.departures].some(({ outstanding }) => outstanding > 0);
    if (!isWaiting || ![...pool.workers.values()].some(({ isConnected }) => !isConnected)) return;
    const next = Math.min(2 * delayMs, thresholds.lookMaxMs);
    this.#looks.set(
      pool,
      setTimeout(() => this.look(pool, next), delayMs),
    );
  }

  [Symbol.dispose](): void {
    for (const timer of this.#looks.values()) clearTimeout(timer);
    this.#looks.clear();
    this.#retries[Symbol.dispose]();
  }
}

/** The run with pages on both sides of `index`. */
function findAcross({ map }: PoolBooks, index: number): PoolRun | undefined {
  const run = index < map.capacity ? map.firstIn(index, 1) : undefined;
  return run !== undefined && run.index < index ? run : undefined;
}

/** Rows of what becomes of a run that is cut. */
function toParts(run: PoolRun, ends: readonly number[]): ElasticRunRow[] {
  const { index, count, firstPage } = run;
  const inside = ends.filter((end) => end > index && end < index + count);
  return [index, ...inside].map((from, at) => ({
    ...toRunRow(run),
    index: from,
    count: (inside[at] ?? index + count) - from,
    firstPage: firstPage + from - index,
  }));
}

export function toRunRow({ index, count, firstPage, evictable, session, mappedAt }: PoolRun): ElasticRunRow {
  return { index, count, firstPage, evictable, session, mappedAt };
}

function toReason(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
