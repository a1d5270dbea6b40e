/** All elastic pools of a server: found by model and device, made, changed, deleted, and asked. What is asked of pages stands beside. */

import { TensordError } from "../../memory/error.ts";
import { limits } from "../../memory/limits.ts";
import { createToken } from "../../memory/naming.ts";
import type {
  Attached,
  AttachRequest,
  ElasticPool,
  ElasticPools,
  MapRequest,
  Overdue,
  Owed,
  PageMove,
  PageRange,
  PoolChange,
  PoolDescription,
  PoolFigures,
  PoolRange,
  PoolRequest,
  PoolWorker,
  Run,
  Taken,
  UnmapRequest,
} from "../../memory/state/elastic.ts";
import { poolNotFound } from "../../memory/state/no-elastic.ts";
import type { Operation } from "../../memory/state/operation.ts";
import { OrderedIndex } from "../../memory/state/ordered-index.ts";
import { findShortage, toShortageError } from "../../memory/state/quota.ts";
import type { Model } from "../../memory/state/region.ts";
import type { Session } from "../../memory/state/session.ts";
import type { Store } from "../../memory/state/store.ts";
import { Attending } from "./attending.ts";
import { compactPool } from "./compact.ts";
import { Departing } from "./departing.ts";
import { describePool, findOverdue, toFigures } from "./describe.ts";
import type { LeaseFiles } from "./lease-files.ts";
import { Mapping } from "./mapping.ts";
import type { PageHost } from "./page-host.ts";
import { PoolBooks, type PoolMember, type PoolRun } from "./pool-books.ts";
import { checkBounds, checkSizes, inUse, isAsAsked, poolExists } from "./refusals.ts";
import { trimPool, unmapPages } from "./unmapping.ts";
import { ElasticWorker } from "./worker.ts";

export class DeviceElasticPools implements ElasticPools {
  readonly #store: Store;
  readonly #host: PageHost;
  readonly #leases: LeaseFiles;
  readonly #departing: Departing;
  readonly #mapping: Mapping;
  readonly #attending: Attending;
  readonly #pools = new OrderedIndex<PoolBooks>();
  readonly #byPlace = new Map<string, PoolBooks>();
  readonly #byToken = new Map<string, PoolBooks>();
  /** Those that are being made, by place. */
  readonly #making = new Map<string, Promise<unknown>>();
  /** Deleted ones of which pages are owed still. */
  readonly #closed = new Set<PoolBooks>();
  #lastKey = 0;

  constructor(store: Store, host: PageHost, leases: LeaseFiles) {
    this.#store = store;
    this.#host = host;
    this.#leases = leases;
    this.#departing = new Departing(store);
    this.#mapping = new Mapping(store, this.#departing);
    this.#attending = new Attending(store, this.#departing);
  }

  async create(request: PoolRequest): Promise<{ readonly pool: ElasticPool; readonly isNew: boolean }> {
    const place = toPlace(request.model, request.deviceUuid);
    for (;;) {
      this.#store.refuseIfStopping();
      const model = this.#store.books.model(request.model);
      const existing = this.#byPlace.get(place);
      if (existing !== undefined) {
        if (!isAsAsked(existing, request)) throw poolExists(existing, request);
        return { pool: existing, isNew: false };
      }
      const memory = this.#host.find(request.deviceUuid);
      checkSizes(request, memory.device.granularity);
      const making = this.#making.get(place);
      if (making === undefined) return { pool: await this.#track(place, this.#make(model, request)), isNew: true };
      await making.catch(() => {});
    }
  }

  async #track<Value>(place: string, work: Promise<Value>): Promise<Value> {
    this.#making.set(place, work);
    try {
      return await work;
    } finally {
      this.#making.delete(place);
    }
  }

  async #make(model: Model, request: PoolRequest): Promise<PoolBooks> {
    if (this.#pools.size >= limits.elasticPools) {
      throw new TensordError("too-many-requests", `Cannot make an elastic pool: ${limits.elasticPools} exist`, {
        hint: "Delete those that are no longer used.",
      });
    }
    const { deviceUuid, minimumBytes } = request;
    this.#checkMinimum(model, deviceUuid, minimumBytes);
    this.#store.books.charge(model, deviceUuid, minimumBytes);
    // So that the model stays meanwhile.
    model.elasticPools += 1;
    const token = createToken();
    const undo = new DisposableStack();
    undo.defer(() => {
      model.elasticPools -= 1;
      this.#store.books.charge(model, deviceUuid, -minimumBytes);
      this.#store.onCharge(model.name);
    });
    try {
      const leaseFd = await this.#leases.create(token);
      undo.defer(() => void this.#leases.remove(token));
      this.#store.refuseIfStopping();
      const key = this.#lastKey + 1;
      const facts = { ...request, key, token, revision: 1, createdAt: this.#store.now(), nextPage: 1 };
      const pool = new PoolBooks(facts, model, this.#host.find(deviceUuid), leaseFd);
      this.#store.journal.changeElastic(key, { pool: pool.toRow() });
      this.#store.step("vmm.pool-journaled");
      pool.chargedBytes = minimumBytes;
      this.#enter(pool);
      undo.move();
      this.#store.onCharge(model.name);
      return pool;
    } catch (error) {
      undo.dispose();
      throw error;
    }
  }

  /** Enters a pool of an earlier server, with its pages, which have been found. */
  revive(pool: PoolBooks, runs: readonly PoolRun[]): void {
    pool.model.elasticPools += 1;
    this.#enter(pool);
    for (const run of runs) {
      pool.map.add(run);
      pool.physicalPages += run.count;
      this.#departing.enter(run);
    }
    pool.settleCharge(this.#store.books);
  }

  /** What has the runs go that come back. */
  get evict(): (run: PoolRun, actor: string | undefined) => Promise<number> {
    return (run, actor) => this.#departing.evict(run, actor);
  }

  /** Ends runs of sessions that are no more. */
  endAbandoned(pool: PoolBooks): void {
    const isAbandoned = ({ session }: PoolRun) =>
      session !== null && this.#store.books.findSession(session) === undefined;
    const abandoned = pool.map.runs.filter(isAbandoned);
    if (abandoned.length > 0) this.#departing.announceEach(pool, abandoned, { reason: "session", actor: undefined });
  }

  #enter(pool: PoolBooks): void {
    this.#lastKey = Math.max(this.#lastKey, pool.key);
    this.#pools.append(pool);
    this.#byPlace.set(toPlace(pool.model.name, pool.deviceUuid), pool);
    this.#byToken.set(pool.token, pool);
  }

  #checkMinimum(model: Model, poolName: string, bytes: number): void {
    const charge = { model, poolName, session: null, bytes, listBytes: 0 };
    const shortage = bytes > 0 ? findShortage(this.#store.books, charge) : undefined;
    if (shortage !== undefined) throw toShortageError(this.#store.books, charge, shortage);
  }

  find(model: string, deviceUuid: string): PoolBooks {
    this.#store.books.model(model);
    const pool = this.#byPlace.get(toPlace(model, deviceUuid));
    if (pool === undefined) throw poolNotFound(model, deviceUuid);
    return pool;
  }

  findByToken(token: string): PoolBooks | undefined {
    return this.#byToken.get(token);
  }

  get count(): number {
    return this.#pools.size;
  }

  after(key: number): Iterable<ElasticPool> {
    return this.#pools.after(key);
  }

  change(asked: ElasticPool, { minimumBytes, maximumBytes }: PoolChange): void {
    const pool = this.#own(asked);
    const minimum = minimumBytes ?? pool.minimumBytes;
    const maximum = maximumBytes === undefined ? pool.maximumBytes : maximumBytes;
    checkBounds(pool.virtualCapacity, minimum, maximum);
    this.#checkMinimum(pool.model, pool.deviceUuid, Math.max(pool.physicalBytes, minimum) - pool.chargedBytes);
    const revision = pool.revision + 1;
    const row = { ...pool.toRow(), minimumBytes: minimum, maximumBytes: maximum, revision };
    this.#store.journal.changeElastic(pool.key, { pool: row });
    this.#store.step("vmm.pool-journaled");
    pool.minimumBytes = minimum;
    pool.maximumBytes = maximum;
    pool.revision = revision;
    pool.settleCharge(this.#store.books);
    this.#store.onCharge(pool.model.name);
  }

  async remove(asked: ElasticPool, actor: string | undefined): Promise<{ readonly freedBytes: number }> {
    const pool = this.#own(asked);
    this.#departing.reap(pool);
    if (pool.workers.size > 0) throw inUse(pool, "delete", [...pool.workers.values()]);
    // What goes already is told; from here on nobody finds it.
    this.#store.journal.deleteElasticPool(pool.key);
    this.#store.step("vmm.pool-row-deleted");
    const before = pool.runOf.size + pool.owed.size;
    pool.closing.abort(poolNotFound(pool.model.name, pool.deviceUuid));
    this.#byPlace.delete(toPlace(pool.model.name, pool.deviceUuid));
    this.#byToken.delete(pool.token);
    this.#pools.remove(pool);
    this.#closed.add(pool);
    const runs = pool.map.runs.filter((run) => run.isMapped);
    this.#departing.announce(pool, runs, { reason: "deleted", actor });
    await Promise.allSettled([...pool.coming]);
    await Promise.all([...pool.releasing]);
    pool.model.elasticPools -= 1;
    pool.settleCharge(this.#store.books);
    this.#store.onCharge(pool.model.name);
    await this.#leases.remove(pool.token);
    for (const closed of [...this.#closed]) if (closed.owed.size === 0) this.#closed.delete(closed);
    return { freedBytes: Math.max(0, before - pool.owed.size) * pool.pageSize };
  }

  figures(pool: ElasticPool): PoolFigures {
    return toFigures(this.#store, this.#own(pool));
  }

  describe(asked: ElasticPool, range?: PoolRange): PoolDescription {
    const pool = this.#own(asked);
    this.#departing.reap(pool);
    return describePool(this.#store, pool, range);
  }

  map(
    pool: ElasticPool,
    request: MapRequest,
    signal: AbortSignal,
  ): Promise<{ readonly run: Run; readonly sequence: number }> {
    return this.#mapping.map(this.#own(pool), request, signal);
  }

  unmap(pool: ElasticPool, request: UnmapRequest): Operation {
    return unmapPages(this.#store, this.#departing, this.#own(pool), request);
  }

  trim(
    pool: ElasticPool,
    actor: string | undefined,
  ): Promise<{ readonly freedBytes: number; readonly sequence: number }> {
    return trimPool(this.#store, this.#departing, this.#own(pool), actor);
  }

  compact(pool: ElasticPool): { readonly moves: readonly PageMove[]; readonly sequence: number } {
    return compactPool(this.#store, this.#departing, this.#own(pool));
  }

  attachWorker(pool: ElasticPool, request: AttachRequest): Attached {
    return this.#attending.attach(this.#own(pool), request);
  }

  refresh(worker: PoolWorker): Pick<Attached, "runs" | "sequence"> {
    return this.#attending.refresh(this.#own(worker.pool));
  }

  take(worker: PoolWorker, ranges: readonly PageRange[]): Promise<Taken> {
    return this.#attending.take(toWorker(worker), ranges);
  }

  letGo(worker: PoolWorker, ranges: readonly PageRange[], sequence: number): void {
    this.#attending.letGo(toWorker(worker), ranges, sequence);
  }

  leave(worker: PoolWorker): void {
    this.#attending.leave(toWorker(worker));
  }

  disconnected(worker: PoolWorker): void {
    this.#attending.disconnected(toWorker(worker));
  }

  endSession({ token }: Session, actor: string | undefined): void {
    this.#departing.endSession(token, actor);
  }

  get overdue(): readonly Overdue[] {
    const workers = [...this.#pools.after(0)].flatMap((pool) => [...pool.workers.values()]);
    return workers.flatMap((worker) => {
      const late = findOverdue(this.#store, worker);
      if (late.length === 0) return [];
      const { pool, slot, client, isConnected } = worker;
      const byteSize = late.reduce((sum, each) => sum + each.byteSize, 0);
      return [{ pool, slot, client, isConnected, byteSize, since: Math.min(...late.map(({ since }) => since)) }];
    });
  }

  get owed(): readonly Owed[] {
    const pools = [...this.#pools.after(0), ...this.#closed];
    return pools.flatMap((pool) =>
      [...pool.owed.values()].map(({ page, since, reason, isStuck }) => ({
        pool,
        page,
        byteSize: pool.pageSize,
        since,
        reason,
        isStuck,
      })),
    );
  }

  async stop(): Promise<void> {
    this.#departing.stop();
    const pools = [...this.#pools.after(0), ...this.#closed];
    for (const pool of pools) {
      for (const departure of [...pool.departures]) this.#departing.undo(pool, departure);
    }
    // What is being made undoes itself: it sees that the server stops.
    await Promise.allSettled([...this.#making.values(), ...pools.flatMap(({ coming }) => [...coming])]);
    await Promise.all(pools.flatMap(({ releasing }) => [...releasing]));
    this.#departing[Symbol.dispose]();
  }

  /** What is here is nobody else's. @throws TensordError `vmm-pool-not-found` if it was deleted meanwhile. */
  #own(pool: ElasticPool): PoolBooks {
    const found = this.#byToken.get(pool.token);
    if (found === undefined) throw poolNotFound(pool.model.name, pool.deviceUuid);
    return found;
  }
}

function toPlace(model: string, deviceUuid: string): string {
  return `${model}/${deviceUuid}`;
}

function toWorker(worker: PoolWorker): PoolMember {
  if (worker instanceof ElasticWorker) return worker;
  throw new TypeError("a worker of another kind of pools");
}
