/** Elastic pools, their workers and a card in one process, to which anything may happen in any order; and what must be true of them at rest. */

import { expect } from "bun:test";
import { TensordError } from "../../src/memory/error.ts";
import { MiB } from "../../src/memory/limits.ts";
import { cancelOperation } from "../../src/memory/operations/run.ts";
import { endSession, openSession } from "../../src/memory/sessions/sessions.ts";
import type { ElasticPool } from "../../src/memory/state/elastic.ts";
import type { Operation } from "../../src/memory/state/operation.ts";
import type { Session } from "../../src/memory/state/session.ts";
import { TestHolder } from "../contract/support/test-holder.ts";
import { TestApp, until } from "./app.ts";
import type { Random } from "./instance-random.ts";
import { TrialCard, trialDevice } from "./trial-card.ts";
import { TrialWorker } from "./trial-worker.ts";

const pageSize = 2 * MiB;
const pagesOfPool = 24;
const models = ["default", "other"];

/** What a request may be refused with, whatever was done before. */
const allowed = [
  "already-mapped",
  "not-mapped",
  "out-of-range",
  "pool-full",
  "out-of-device-memory",
  "in-use",
  "io-error",
  "deadline-exceeded",
  "cancelled",
  "session-not-found",
  "shutting-down",
  "out-of-descriptors",
];

export class TrialParty {
  readonly #random: Random;
  readonly #card: TrialCard;
  readonly #holder: TestHolder;
  readonly #waiting = new Set<Promise<unknown>>();
  readonly #operations: Operation[] = [];
  #workers: { readonly model: string; readonly worker: TrialWorker }[] = [];
  #sessions: Session[] = [];
  #app: TestApp;
  /** What the events make of each pool: the number of the page at each offset. */
  readonly #told = new Map(models.map((model) => [model, new Map<number, number>()]));
  #heard = 0;
  /** How often each deed was done, and each refusal met. */
  readonly counts: Record<string, number> = {};

  private constructor(random: Random, app: TestApp, card: TrialCard, holder: TestHolder) {
    this.#random = random;
    this.#app = app;
    this.#card = card;
    this.#holder = holder;
  }

  static async open(random: Random): Promise<TrialParty> {
    const card = new TrialCard();
    const fdHolder = new TestHolder();
    const app = await TestApp.open({ storages: card.storages, fdHolder });
    await app.register("other");
    const party = new TrialParty(random, app, card, fdHolder);
    for (const model of models) {
      await app.store.elastic.create({
        ...{ model, deviceUuid: trialDevice.uuid, virtualCapacity: pagesOfPool * pageSize, pageSize },
        ...{ minimumBytes: model === "other" ? 2 * pageSize : 0, maximumBytes: null, createdBy: null },
      });
    }
    return party;
  }

  #pool(model: string): ElasticPool {
    return this.#app.store.elastic.find(model, trialDevice.uuid);
  }

  #count(what: string): void {
    this.counts[what] = (this.counts[what] ?? 0) + 1;
  }

  /** Does one thing or another; what it waits for goes on beside what is done next. */
  async step(): Promise<void> {
    const random = this.#random;
    const model = random.pick(models);
    const deeds = {
      map: 8,
      unmap: 6,
      cancel: 2,
      trim: 1,
      compact: 1,
      attach: 2,
      follow: 8,
      "let-go": 6,
      disconnect: 1,
      reconnect: 1,
      leave: 1,
      die: 1,
      session: 1,
      "end-session": 1,
      change: 1,
      failures: 2,
    };
    const names = Object.entries(deeds).flatMap(([name, weight]) => new Array<string>(weight).fill(name));
    const deed = random.pick(names);
    this.#count(deed);
    this.#begin(this.#do(deed, model));
    if (random.isTrue(0.3)) await Bun.sleep(0);
    for (const { worker } of this.#workers) worker.check();
    expect(this.#card.pulled, `nothing is given back that somebody has, by "${deed}"`).toEqual([]);
    for (const { isStuck } of this.#app.store.elastic.owed) this.#count(isStuck ? "stuck" : "unreleased");
  }

  #begin(work: Promise<unknown>): void {
    const ending = work.catch((error: unknown) => {
      if (!(error instanceof TensordError) || !allowed.includes(error.code)) throw error;
      this.#count(error.code);
    });
    const tracked = ending.finally(() => this.#waiting.delete(tracked));
    this.#waiting.add(tracked);
    tracked.catch(() => {});
  }

  async #do(deed: string, model: string): Promise<unknown> {
    const random = this.#random;
    const { elastic } = this.#app.store;
    const pool = this.#pool(model);
    const one = this.#workers.length === 0 ? undefined : random.pick(this.#workers);
    const index = random.integer(0, pagesOfPool - 1);
    const range = {
      byteOffset: index * pageSize,
      byteSize: random.integer(1, Math.min(6, pagesOfPool - index)) * pageSize,
    };
    switch (deed) {
      case "map": {
        const session = this.#sessions.length > 0 && random.isTrue(0.3) ? random.pick(this.#sessions) : null;
        const onFull = random.pick(["fail", "evict", "wait"] as const);
        for (const each of this.#app.store.books.evictables) {
          if (random.isTrue(0.5)) Object.assign(each, { lastUsedAt: 0 });
        }
        const asked = { ...range, byteOffset: random.isTrue(0.6) ? undefined : range.byteOffset, session, onFull };
        const more = { evictable: random.isTrue(0.3), deadlineMs: 20, actor: undefined };
        return elastic.map(pool, { ...asked, ...more }, new AbortController().signal);
      }
      case "unmap":
        return this.#operations.push(elastic.unmap(pool, { ...range, createdBy: null, actor: undefined }));
      case "cancel": {
        const running = this.#operations.filter(({ endedAt }) => endedAt === null);
        return running.length === 0 ? undefined : cancelOperation(random.pick(running));
      }
      case "trim":
        return elastic.trim(pool, undefined);
      case "compact":
        return elastic.compact(pool);
      case "attach": {
        if (this.#workers.length >= 5) return undefined;
        const worker = new TrialWorker(this.#app.store, pool, random.isTrue(0.8));
        return this.#workers.push({ model, worker });
      }
      case "follow":
        one?.worker.follow();
        return one?.worker.take(random.integer(1, 12));
      case "let-go":
        return one?.worker.letGo();
      case "disconnect":
        return one?.worker.disconnect();
      case "reconnect":
        return one?.worker.isConnected === false ? this.#reconnect(one) : undefined;
      case "leave":
        return this.#end(one, (worker) => worker.leave());
      case "die":
        return this.#end(one, (worker) => worker.die());
      case "session":
        return this.#openSession();
      case "end-session":
        return this.#endSession();
      case "change":
        return elastic.change(pool, { maximumBytes: random.isTrue(0.5) ? null : random.integer(4, 30) * pageSize });
      case "failures":
        return this.#orderFailures();
      default:
        throw new Error(`nobody knows how to ${deed}`);
    }
  }

  async #reconnect({ model, worker }: { readonly model: string; readonly worker: TrialWorker }): Promise<void> {
    await worker.reconnect(this.#app.store, this.#pool(model));
  }

  async #end(
    one: { readonly worker: TrialWorker } | undefined,
    end: (worker: TrialWorker) => Promise<void>,
  ): Promise<void> {
    if (one === undefined) return;
    this.#workers = this.#workers.filter((each) => each !== one);
    await end(one.worker);
  }

  #openSession(): void {
    const facts = { name: null, client: null, quotaBytes: null, ttlMs: 600_000, createdBy: null };
    if (this.#sessions.length < 3) this.#sessions.push(openSession(this.#app.store, facts));
  }

  async #endSession(): Promise<void> {
    const session = this.#sessions.shift();
    if (session !== undefined) await endSession(this.#app.store, session, "request");
  }

  /** From now on some calls fail, until others are ordered: the next of a kind, or any, so that an undo fails too. */
  #orderFailures(): void {
    const random = this.#random;
    const share = random.pick([0, 0, 0.1, 0.5]);
    const only = random.pick([undefined, undefined, undefined, "create", "export", "release"] as const);
    const isSlow = random.isTrue(0.5);
    this.#card.fails = (call) => (only === undefined || call === only) && random.isTrue(share);
    this.#card.pause = async () => {
      if (isSlow && random.isTrue(0.2)) await Bun.sleep(0);
    };
  }

  /** The server stops and another starts; workers live on, or die meanwhile, and some come back at once. */
  async restart(): Promise<void> {
    this.#count("restart");
    this.#card.fails = () => false;
    for (const { worker } of this.#workers) if (worker.isConnected) worker.disconnect();
    const { instance } = this.#app;
    await this.#app.leave();
    await this.#settle();
    this.#hear();
    for (const one of [...this.#workers]) if (this.#random.isTrue(0.3)) await this.#end(one, (worker) => worker.die());
    this.#app = await TestApp.open({ storages: this.#card.storages, fdHolder: this.#holder, instance });
    this.#sessions = [...this.#app.store.books.sessions.after(0)];
    this.#operations.length = 0;
    for (const one of this.#workers) if (this.#random.isTrue(0.7)) await this.#reconnect(one);
  }

  /** What waits, ends. */
  async #settle(): Promise<void> {
    while (this.#waiting.size > 0) await Promise.all([...this.#waiting]);
  }

  /** Everybody does what was announced, the driver works, and then all has to be as the books say. */
  async rest(): Promise<void> {
    this.#count("rest");
    this.#card.fails = () => false;
    this.#card.pause = async () => {};
    for (const one of this.#workers) if (!one.worker.isConnected) await this.#reconnect(one);
    await until("nothing is on its way", async () => {
      for (const { worker } of this.#workers) {
        worker.follow();
        worker.letGo();
      }
      await Bun.sleep(0);
      const described = models.map((model) => this.#app.store.elastic.describe(this.#pool(model)));
      const owed = this.#app.store.elastic.owed.length;
      return this.#waiting.size === 0 && owed === 0 && described.every(({ leaving }) => leaving.length === 0);
    });
    await this.#settle();
    this.#hear();
    for (const { worker } of this.#workers) {
      worker.follow();
      while ((await worker.take()) > 0);
    }
    this.#compare();
  }

  #compare(): void {
    const { elastic, books } = this.#app.store;
    expect(this.#card.pulled, "nothing is given back that somebody has").toEqual([]);
    let physicalBytes = 0;
    let chargedBytes = 0;
    for (const model of models) {
      const pool = this.#pool(model);
      const described = elastic.describe(pool);
      const places = new Map<number, number>();
      for (const run of described.runs) {
        for (let at = 0; at < run.byteSize; at += pageSize)
          places.set(run.byteOffset + at, run.firstPage + at / pageSize);
      }
      expect(sorted(this.#told.get(model)), `what the events say of ${model}`).toEqual(sorted(places));
      for (const each of this.#workers) {
        if (each.model !== model) continue;
        expect(sorted(each.worker.places), "a worker's map").toEqual(sorted(places));
        expect([...each.worker.held.keys()].every((page) => [...places.values()].includes(page))).toBeTrue();
      }
      expect(described.mappedBytes).toBe(places.size * pageSize);
      expect(described.physicalBytes, "at rest only what is mapped is there").toBe(described.mappedBytes);
      const charge = Math.max(described.physicalBytes, pool.minimumBytes);
      expect(books.model(model).pools.get(trialDevice.uuid).usedBytes).toBe(charge);
      physicalBytes += described.physicalBytes;
      chargedBytes += charge;
    }
    expect(books.pools.get(trialDevice.uuid).usedBytes).toBe(chargedBytes);
    expect(this.#card.pages.size, "what somebody has of the card").toBe(physicalBytes / pageSize);
  }

  /** Reads the events since the last, of which none may say that pages are lost. */
  #hear(): void {
    const { events } = this.#app.store;
    for (let sequence = Math.max(this.#heard, events.floor) + 1; sequence <= events.last; sequence++) {
      this.#heard = sequence;
      const { type, data } = JSON.parse(events.at(sequence).text);
      if (!type.startsWith("tensord.vmm.")) continue;
      expect(data.reason).not.toBe("lost");
      const told = this.#told.get(data.model);
      if (told === undefined) throw new Error(`nobody has a pool of ${data.model}`);
      for (const { from_byte_offset: from, byte_size: size } of data.moves ?? []) {
        for (let at = 0; at < size; at += pageSize) told.delete(from + at);
      }
      for (const run of [...(data.runs ?? []), ...(data.moves ?? [])]) {
        const offset = run.byte_offset ?? run.to_byte_offset;
        for (let at = 0; at < run.byte_size; at += pageSize) {
          const page = run.first_page + at / pageSize;
          if (type === "tensord.vmm.unmapped") {
            expect(told.get(offset + at), "only what was told is told to go").toBe(page);
            told.delete(offset + at);
          } else {
            expect(told.get(offset + at), "no page lies on another").toBeUndefined();
            told.set(offset + at, page);
          }
        }
      }
    }
  }

  /** Nothing of a card is left once workers and pools are gone. */
  async close(): Promise<void> {
    await this.rest();
    for (const one of [...this.#workers]) await this.#end(one, (worker) => worker.leave());
    for (const model of models) await this.#app.store.elastic.remove(this.#pool(model), undefined);
    expect(this.#card.pages.size).toBe(0);
    await this.#app.close();
    expect([...this.#holder.held.keys()]).toEqual([]);
    this.#holder[Symbol.dispose]();
  }
}

function sorted(places: ReadonlyMap<number, number> = new Map()): [number, number][] {
  return [...places].toSorted(([one], [other]) => one - other);
}
