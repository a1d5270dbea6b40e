/**
 * The one owner of state: the books, what they are written to, and who hears of a change. Operations (`create.ts`,
 * `seal.ts`, `delete.ts` …) change it in synchronous turns; it knows none of them.
 */

import type { Agenda } from "./agenda.ts";
import type { Books } from "./books.ts";
import { TensordError } from "./error.ts";
import { EventFeeder } from "./events/event-feeder.ts";
import type { EventLog } from "./events/event-log.ts";
import type { Journal } from "./journal/journal.ts";
import { NameWaiters } from "./name-waiters.ts";
import type { Model, Region, RegionRecord } from "./region.ts";
import type { OnStep, Step } from "./steps.ts";
import { Downloads } from "./storage/downloads.ts";
import type { Storage } from "./storage/storage.ts";

/** A region as an event shows it: one that was lost has no books any more. */
export type EventRegion = RegionRecord & Pick<Region, "lastUsedAt">;

export type StoreEvent =
  | { readonly type: "tensord.region.allocated"; readonly region: EventRegion }
  | { readonly type: "tensord.region.sealed"; readonly region: EventRegion }
  | { readonly type: "tensord.region.changed"; readonly region: EventRegion }
  | { readonly type: "tensord.region.draining"; readonly region: EventRegion; readonly actor: string | undefined }
  | { readonly type: "tensord.region.deleted"; readonly region: EventRegion; readonly actor: string | undefined }
  | { readonly type: "tensord.region.lost"; readonly region: EventRegion }
  | {
      readonly type: "tensord.region.relinked";
      readonly region: EventRegion;
      readonly cause: "unlinked" | "foreign-file";
    }
  | { readonly type: "tensord.model.registered"; readonly model: Model }
  | { readonly type: "tensord.model.changed"; readonly model: Model }
  | { readonly type: "tensord.model.unregistered"; readonly model: Model };

export type EventWriter = (store: Store, event: StoreEvent, sequence: number) => string;

export interface StoreParts {
  readonly instance: string;
  readonly books: Books;
  readonly journal: Journal;
  readonly storage: Storage;
  readonly addresses: Addresses;
  readonly events: EventLog;
  /** How an event is written down for those who follow. */
  readonly toEventText: EventWriter;
  readonly epoch: number;
  /** Regions that drain, each to be asked for leases again. */
  readonly draining: Agenda<Region>;
  /** Regions with a TTL, each due when it ends. */
  readonly expiring: Agenda<Region>;
  /** Told of what went wrong where no request waits for an answer. */
  readonly onWarning: (message: string, error: unknown) => void;
  readonly onStep: OnStep | undefined;
}

/** What a region's file is called and where clients find it. */
export interface Addresses {
  path(token: string): string;
  shmName(token: string): string | null;
}

export class Store {
  readonly instance: string;
  readonly books: Books;
  readonly journal: Journal;
  readonly storage: Storage;
  readonly addresses: Addresses;
  readonly events: EventLog;
  readonly feeder: EventFeeder;
  readonly epoch: number;
  readonly draining: Agenda<Region>;
  readonly expiring: Agenda<Region>;
  readonly waiters = new NameWaiters();
  readonly downloads = new Downloads();
  readonly warn: (message: string, error: unknown) => void;
  readonly #toEventText: EventWriter;
  readonly #onStep: OnStep | undefined;
  readonly #listeners = new Set<(event: StoreEvent) => void>();
  readonly #stopping = new AbortController();

  constructor(parts: StoreParts) {
    this.instance = parts.instance;
    this.books = parts.books;
    this.journal = parts.journal;
    this.storage = parts.storage;
    this.addresses = parts.addresses;
    this.events = parts.events;
    this.feeder = new EventFeeder(parts.events);
    this.#toEventText = parts.toEventText;
    this.epoch = parts.epoch;
    this.draining = parts.draining;
    this.expiring = parts.expiring;
    this.warn = parts.onWarning;
    this.#onStep = parts.onStep;
  }

  now(): number {
    return Date.now();
  }

  step(step: Step): void {
    this.#onStep?.(step);
  }

  /** Calls `listener` after each change, in the turn that made it. Returns what ends that. */
  listen(listener: (event: StoreEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Tells of a change, in the turn that made it: it is kept for those who follow, and the listeners hear it. */
  emit(event: StoreEvent): void {
    const model = "region" in event ? event.region.model : event.model.name;
    this.events.append(event.type, model, (sequence) => this.#toEventText(this, event, sequence));
    for (const listener of this.#listeners) listener(event);
  }

  /** Aborts when the server stops: whoever waits answers then. */
  get stopping(): AbortSignal {
    return this.#stopping.signal;
  }

  stop(): void {
    this.#stopping.abort(shuttingDown());
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
