/**
 * The one owner of state: the books, what they are written to, and who hears of a change. Operations (`create.ts`,
 * `seal.ts`, `delete.ts` …) change it in synchronous turns; it knows none of them.
 */

import { TensordError } from "../error.ts";
import { EventFeeder } from "../events/event-feeder.ts";
import type { EventLog, UnwrittenEvent } from "../events/event-log.ts";
import type { Journal } from "../journal/journal.ts";
import type { Proofs } from "../journal/proofs.ts";
import { describe } from "../journal/region-record.ts";
import { quote } from "../naming.ts";
import { Downloads } from "../storage/downloads.ts";
import { LayoutLane } from "../storage/layout-lane.ts";
import type { Reserve } from "../storage/shm/reserve/reserve.ts";
import type { Storages } from "../storage/storages.ts";
import type { TensorFiles } from "../storage/tensor-files.ts";
import type { Agenda } from "./agenda.ts";
import type { Books } from "./books.ts";
import { Claims } from "./claim-index.ts";
import type { ElasticPools } from "./elastic.ts";
import { Holders } from "./holders.ts";
import { hasEnded } from "./lifecycle.ts";
import { NameWaiters } from "./name-waiters.ts";
import { noElasticPools } from "./no-elastic.ts";
import { Operations } from "./operation.ts";
import { PressureGauge } from "./pressure.ts";
import type { Region, RegionChange } from "./region.ts";
import { RequestedLeases } from "./requested-leases.ts";
import { RoomQueue } from "./room-queue.ts";
import type { RequestedLease, Session } from "./session.ts";
import type { OnStep, Step } from "./steps.ts";
import { type StoreEvent, toTopic } from "./store-event.ts";

/** Writes an event down, or takes down what it needs to do so later. */
export type EventWriter = (store: Store, event: StoreEvent, sequence: number) => string | UnwrittenEvent;

export interface StoreParts {
  readonly instance: string;
  readonly books: Books;
  readonly journal: Journal;
  readonly proofs: Proofs;
  readonly storages: Storages;
  readonly reserve: Reserve;
  readonly tensorFiles: TensorFiles;
  readonly events: EventLog;
  /** How an event is written down for those who follow. */
  readonly toEventText: EventWriter;
  readonly epoch: number;
  /** Regions that drain, each to be asked for leases again. */
  readonly draining: Agenda<Region>;
  /** Regions whose owner ends them by time, each due when it may. */
  readonly expiring: Agenda<Region>;
  /** Regions whose public name was mended a moment ago, each to be looked at again. */
  readonly mending: Agenda<Region>;
  /** Sessions and leases by request, each due when its TTL ends. */
  readonly endingSessions: Agenda<Session>;
  readonly endingRequestedLeases: Agenda<RequestedLease>;
  /** Told of what went wrong where no request waits for an answer. */
  readonly onWarning: (message: string, error: unknown) => void;
  readonly onStep: OnStep | undefined;
}

export class Store {
  readonly instance: string;
  readonly books: Books;
  readonly journal: Journal;
  readonly proofs: Proofs;
  readonly storages: Storages;
  /** Files that lie ready for regions in `shm` storage. */
  readonly reserve: Reserve;
  readonly tensorFiles: TensorFiles;
  readonly layouts = new LayoutLane();
  readonly events: EventLog;
  readonly feeder: EventFeeder;
  readonly epoch: number;
  readonly draining: Agenda<Region>;
  /** Tries to free what drains, or what has left a pool, that are under way. None rejects. */
  readonly freeing = new Set<Promise<unknown>>();
  readonly expiring: Agenda<Region>;
  readonly mending: Agenda<Region>;
  readonly endingSessions: Agenda<Session>;
  readonly endingRequestedLeases: Agenda<RequestedLease>;
  readonly claims = new Claims();
  readonly requestedLeases = new RequestedLeases();
  readonly holders = new Holders();
  readonly operations = new Operations();
  readonly room = new RoomQueue();
  readonly #pressure = new PressureGauge();
  readonly waiters = new NameWaiters();
  readonly downloads = new Downloads();
  /** Those of devices, once what makes them is there. */
  elastic: ElasticPools;
  readonly #onWarning: (message: string, error: unknown) => void;
  readonly #toEventText: EventWriter;
  readonly #onStep: OnStep | undefined;
  readonly #listeners = new Set<(event: StoreEvent) => void>();
  readonly #stopping = new AbortController();
  #isClosing = false;

  constructor(parts: StoreParts) {
    this.instance = parts.instance;
    this.books = parts.books;
    this.journal = parts.journal;
    this.proofs = parts.proofs;
    this.storages = parts.storages;
    this.reserve = parts.reserve;
    this.tensorFiles = parts.tensorFiles;
    this.events = parts.events;
    this.feeder = new EventFeeder(parts.events);
    this.#toEventText = parts.toEventText;
    this.epoch = parts.epoch;
    this.draining = parts.draining;
    this.expiring = parts.expiring;
    this.mending = parts.mending;
    this.endingSessions = parts.endingSessions;
    this.endingRequestedLeases = parts.endingRequestedLeases;
    this.#onWarning = parts.onWarning;
    this.#onStep = parts.onStep;
    this.elastic = noElasticPools(parts.books, parts.storages);
  }

  now(): number {
    return Date.now();
  }

  step(step: Step): void {
    this.#onStep?.(step);
  }

  /**
   * Changes regions in one turn: their rows first, as they will be at their next revision, then the books and what proves
   * them. Before all that the current marks go of what is not as it was said to be. If a row cannot be written nothing else has
   * changed. Of two, the later may take the name that the first gives up.
   * @throws TensordError `out-of-shared-memory`.
   */
  change(step: Step, ...changes: readonly (readonly [Region, RegionChange])[]): void {
    for (const [region, change] of changes) {
      if (change.state === "sealed") this.unmarkOthers(region);
      // Who ends gives its file's name up.
      else if (change.state === undefined) this.#unmark(region);
    }
    const revised = changes.map(([region, change]) => [region, { ...change, revision: region.revision + 1 }] as const);
    this.journal.updateRegions(revised.map(([region, change]) => ({ ...region, ...change })));
    this.step(step);
    for (const [region, change] of revised) this.books.change(region, change);
    // What has ended last: a name that changes hands is proved twice for a moment, and never not at all.
    for (const [region] of revised) if (!hasEnded(region.state)) this.#renewProof(region);
    for (const [region] of revised) if (hasEnded(region.state)) this.#renewProof(region);
  }

  /** Before `region` is sealed: its name alone may mean it from then on, and none of the versions beside it. */
  unmarkOthers(region: Region): void {
    const name = region.pendingName ?? region.name;
    if (name === null) return;
    for (const other of region.modelBooks.names.all(name)) if (other !== region) this.#unmark(other);
  }

  /** Who knows a sealed region by its name has to ask for it from here on. A crash after that costs a question. */
  #unmark(region: Region): void {
    if (region.isUnmarked || region.state !== "sealed") return;
    const access = region.stockWritable ? "sealed-stock-writable" : "sealed";
    this.storages.of(region).memory.unmark?.(region.token, access);
    region.isUnmarked = true;
  }

  /** The row stands already: what cannot be proved now is told, and proved at its next change or start. */
  #renewProof(region: Region): void {
    try {
      if (hasEnded(region.state)) this.proofs.remove(region.token);
      else this.proofs.put(region);
    } catch (error) {
      this.warn(`Cannot prove ${describe(region)}: if the journal is lost, it has no name`, error);
    }
    this.step("proof.renewed");
  }

  /** Calls `listener` after each change, in the turn that made it. Returns what ends that. */
  listen(listener: (event: StoreEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Tells of a change, in the turn that made it: it is kept for those who follow, and the listeners hear it. */
  emit(event: StoreEvent): void {
    this.events.append(event.type, toTopic(event), (sequence) => this.#toEventText(this, event, sequence));
    for (const listener of this.#listeners) listener(event);
    if ("region" in event) this.onCharge(event.region.model);
    if (event.type === "tensord.model.changed") this.onCharge(event.model.name);
  }

  /** Memory was taken or given back: the pool may be full, or no longer, and somebody may wait for it. */
  onCharge(modelName: string): void {
    const model = this.books.findModel(modelName);
    const pressures = model === undefined ? [] : this.#pressure.look(this.books, model);
    for (const pressure of pressures) this.emit({ type: "tensord.pool.pressure", pressure });
    if (this.room.size > 0) this.room.pump(this.books);
  }

  /** Aborts when the server stops: whoever waits answers then. */
  get stopping(): AbortSignal {
    return this.#stopping.signal;
  }

  stop(): void {
    this.#stopping.abort(shuttingDown());
  }

  /** What is still under way, such as the end of a session, meets what is closed from now on; the next start goes on with it. */
  close(): void {
    this.#isClosing = true;
  }

  get isClosing(): boolean {
    return this.#isClosing;
  }

  /** Tells of what went wrong where no request waits for an answer. */
  warn(message: string, error: unknown): void {
    if (!this.#isClosing) this.#onWarning(message, error);
  }

  /** @throws TensordError `validation-failed` if there is no such pool, `not-ready` as long as nobody knows. */
  checkPool(name: string, what: string): void {
    if (!this.books.pools.has(name)) this.storages.refuseIfAwaited(`${what} ${quote(name)}`);
    this.books.pools.check(name, what);
  }

  /** @throws TensordError `shutting-down` once the server stops. */
  refuseIfStopping(): void {
    this.stopping.throwIfAborted();
  }
}

function shuttingDown(): TensordError {
  return new TensordError("shutting-down", "Cannot take the request: the server is shutting down", {
    hint: "Regions stay; ask again when the server is back.",
  });
}
