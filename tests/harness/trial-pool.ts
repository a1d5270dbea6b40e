/** One elastic pool on a trial card, and what tests ask of it in short. */

import { expect } from "bun:test";
import { MiB } from "../../src/memory/limits.ts";
import type { ElasticPool, MapRequest, PoolDescription, PoolRequest, Run } from "../../src/memory/state/elastic.ts";
import type { Operation } from "../../src/memory/state/operation.ts";
import { TestHolder } from "../contract/support/test-holder.ts";
import { TestApp, until } from "./app.ts";
import { TrialCard, trialDevice } from "./trial-card.ts";
import { TrialWorker } from "./trial-worker.ts";

export const pageSize = 2 * MiB;

interface Told {
  readonly type: string;
  readonly data: Readonly<Record<string, unknown>>;
}

export class TrialPool implements AsyncDisposable {
  readonly card: TrialCard;
  readonly holder: TestHolder;
  readonly #isKept: boolean;
  app: TestApp;
  readonly #workers: TrialWorker[] = [];

  private constructor(app: TestApp, card: TrialCard, holder: TestHolder, isKept: boolean) {
    this.#isKept = isKept;
    this.app = app;
    this.card = card;
    this.holder = holder;
  }

  /**
   * A pool of 16 pages of the model "default".
   * @param isKept whether there is an fd holder.
   */
  static async open(more: Partial<PoolRequest> = {}, isKept = true): Promise<TrialPool> {
    const card = new TrialCard();
    const fdHolder = new TestHolder();
    const app = await TestApp.open({ storages: card.storages, ...(isKept && { fdHolder }) });
    const trial = new TrialPool(app, card, fdHolder, isKept);
    await trial.make(more);
    return trial;
  }

  async make(more: Partial<PoolRequest> = {}): Promise<ElasticPool> {
    const { pool } = await this.app.store.elastic.create({
      ...{ model: "default", deviceUuid: trialDevice.uuid, virtualCapacity: 16 * pageSize, pageSize },
      ...{ minimumBytes: 0, maximumBytes: null, createdBy: null, ...more },
    });
    return pool;
  }

  get pool(): ElasticPool {
    return this.app.store.elastic.find("default", trialDevice.uuid);
  }

  get charged(): number {
    return this.app.store.books.pools.get(trialDevice.uuid).usedBytes / pageSize;
  }

  describe(): PoolDescription {
    return this.app.store.elastic.describe(this.pool);
  }

  /** Runs as `[first page of the range, pages, number of the first]`. */
  get runs(): [number, number, number][] {
    return this.describe().runs.map(({ byteOffset, byteSize, firstPage }) => [
      byteOffset / pageSize,
      byteSize / pageSize,
      firstPage,
    ]);
  }

  async map(pages: number, more: Partial<MapRequest> = {}, pool = this.pool): Promise<Run> {
    const asked: MapRequest = {
      ...{ byteSize: pages * pageSize, byteOffset: undefined, session: null, evictable: false },
      ...{ onFull: "fail", deadlineMs: 60_000, actor: undefined, ...more },
    };
    return (await this.app.store.elastic.map(pool, asked, new AbortController().signal)).run;
  }

  unmap(index: number, pages: number): Operation {
    const range = { byteOffset: index * pageSize, byteSize: pages * pageSize };
    return this.app.store.elastic.unmap(this.pool, { ...range, createdBy: null, actor: "test" });
  }

  attach(agreesToMoves = true): TrialWorker {
    const worker = new TrialWorker(this.app.store, this.pool, agreesToMoves);
    this.#workers.push(worker);
    return worker;
  }

  /** What was told of pools since the start of this server. */
  get told(): Told[] {
    const { events } = this.app.store.events.history();
    return events.filter(({ type }) => type.startsWith("tensord.vmm.")).map(({ text }) => JSON.parse(text));
  }

  /** The next server, after this one has stopped. */
  async restart(): Promise<void> {
    await this.app.leave();
    await this.reopen();
  }

  /** A server after one that has stopped. */
  async reopen(use: (app: TestApp) => void = () => {}): Promise<void> {
    const { instance } = this.app;
    this.app = await TestApp.open({
      storages: this.card.storages,
      instance,
      ...(this.#isKept && { fdHolder: this.holder }),
    });
    use(this.app);
  }

  /** What was not given back is tried again in a moment. */
  async untilNothingOwed(): Promise<void> {
    await until("nothing is owed", () => this.app.store.elastic.owed.length === 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const worker of this.#workers) await worker.die();
    for (const pool of [...this.app.store.elastic.after(0)]) await this.app.store.elastic.remove(pool, undefined);
    await this.untilNothingOwed();
    expect(this.charged).toBe(0);
    expect([...this.card.pages], "nothing of the card is left").toEqual([]);
    expect(this.card.pulled).toEqual([]);
    await this.app.close();
    expect([...this.holder.held.keys()]).toEqual([]);
    this.holder[Symbol.dispose]();
  }
}

/** The code of what is thrown. */
export async function refusalOf(work: () => unknown): Promise<unknown> {
  try {
    await work();
    return undefined;
  } catch (error) {
    return (error as { readonly code?: unknown }).code ?? error;
  }
}
