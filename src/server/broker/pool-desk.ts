/**
 * What one connection to the broker says of elastic pools: it attaches to some, takes their pages, and lets go of them. What a worker has, and
 * whether it lives, the pools know; here are the frames, and what is undone of an answer that was not sent.
 */

import { closeSync } from "node:fs";
import { TensordError } from "../../memory/error.ts";
import { parseId, quote } from "../../memory/naming.ts";
import { defaultModelName } from "../../memory/state/books.ts";
import { type Attached, type ElasticPool, idOfPool, type PoolWorker } from "../../memory/state/elastic.ts";
import type { Session } from "../../memory/state/session.ts";
import type { Store } from "../../memory/state/store.ts";
import type { Caller } from "../../routes/access/caller.ts";
import { checkModel, checkRole } from "../../routes/access/checks.ts";
import { type BrokerAnswer, toAnswer } from "./answer.ts";
import type { ElasticRequest, LetGoRequest, PoolRequest, TakeRequest } from "./requests.ts";
import { createRunsFile, type RunsFile, toTable } from "./runs-file.ts";

/** Whose connection it is. */
export interface Peer {
  readonly caller: Caller;
  /** The session that it holds, or null. */
  readonly session: Session | null;
  /** What its process is called, or null. */
  readonly client: string | null;
}

export class PoolDesk {
  readonly #store: Store;
  /** By the pool's id. One is here from the turn in which it is attached. */
  readonly #workers = new Map<string, PoolWorker>();

  constructor(store: Store) {
    this.#store = store;
  }

  /** @throws TensordError, as the seam of elastic pools and the checks of rights do. */
  answer(request: ElasticRequest, peer: Peer): BrokerAnswer | Promise<BrokerAnswer> {
    switch (request.op) {
      case "pool":
        return this.#attach(request, peer);
      case "take":
        return this.#take(request);
      case "let_go":
        return this.#letGo(request);
      case "leave": {
        const worker = this.#workerOf(request.pool);
        this.#store.elastic.leave(worker);
        this.#workers.delete(request.pool);
        return toAnswer({});
      }
    }
  }

  #attach(request: PoolRequest, { caller, session, client }: Peer): Promise<BrokerAnswer> {
    const { model = defaultModelName, device_uuid: deviceUuid, moves, slot, taken = [] } = request;
    const { elastic } = this.#store;
    checkRole(caller, "attachToElasticPool");
    checkModel(caller, model);
    const pool = elastic.find(model, deviceUuid);
    const known = this.#workers.get(idOfPool(pool));
    if (known !== undefined) return this.#describe(pool, known, elastic.refresh(known), undefined);
    const attached = elastic.attachWorker(pool, { slot, taken, agreesToMoves: moves, session, client });
    this.#workers.set(idOfPool(pool), attached.worker);
    return this.#describe(pool, attached.worker, attached, attached);
  }

  /** @param isNew what an answer that is not sent takes back. */
  async #describe(
    pool: ElasticPool,
    worker: PoolWorker,
    map: Pick<Attached, "runs" | "sequence">,
    isNew: Attached | undefined,
  ): Promise<BrokerAnswer> {
    // In the turn in which the map was read: it goes on changing.
    const table = toTable(map.runs);
    using undoing = new DisposableStack();
    let isSent = false;
    if (isNew !== undefined) undoing.defer(() => isSent || this.#forget(pool, worker));
    const slotFd = isNew?.slotFd;
    const slots = slotFd === undefined ? [] : [undoing.adopt(slotFd, closeSync)];
    const runs: RunsFile = undoing.use(await createRunsFile(table));
    const all = undoing.move();
    return toAnswer(
      {
        pool: idOfPool(pool),
        slot: worker.slot,
        virtual_capacity: pool.virtualCapacity,
        page_size: pool.pageSize,
        sequence: String(map.sequence),
        runs_byte_size: runs.byteSize,
        fds: [...slots.map(() => "slot"), "runs"],
      },
      {
        descriptors: [...slots, runs.fd],
        sent: () => {
          isSent = true;
        },
        [Symbol.dispose]: () => all.dispose(),
      },
    );
  }

  /** It never heard that it is attached. What it has locked before, its slot still tells. */
  #forget(pool: ElasticPool, worker: PoolWorker): void {
    if (this.#workers.get(idOfPool(pool)) === worker) this.#workers.delete(idOfPool(pool));
    this.#store.elastic.disconnected(worker);
  }

  async #take({ pool, pages: ranges }: TakeRequest): Promise<BrokerAnswer> {
    const worker = this.#workerOf(pool);
    const { pages, gone, descriptors, takeBack } = await this.#store.elastic.take(worker, ranges);
    let isSent = false;
    using opened = new DisposableStack();
    opened.defer(() => isSent || takeBack());
    for (const fd of descriptors) opened.adopt(fd, closeSync);
    const all = opened.move();
    return toAnswer(
      { pages, gone, fds: descriptors.map(() => "handle") },
      {
        descriptors,
        sent: () => {
          isSent = true;
        },
        [Symbol.dispose]: () => all.dispose(),
      },
    );
  }

  #letGo({ pool, pages, sequence }: LetGoRequest): BrokerAnswer {
    this.#store.elastic.letGo(this.#workerOf(pool), pages, Number(sequence));
    return toAnswer({});
  }

  /** @throws TensordError `validation-failed`. */
  #workerOf(id: string): PoolWorker {
    const token = parseId("vmm_", id);
    const worker = this.#workers.get(id);
    if (worker !== undefined && this.#store.elastic.findByToken(token ?? "") !== undefined) return worker;
    throw new TensordError(
      "validation-failed",
      `Cannot work on elastic pool ${quote(id)}: this connection is not attached to it`,
      { hint: "Attach to the pool first, over the same connection." },
    );
  }

  /** The connection is over, and with it what it says; what it has, each slot tells. */
  ended(): void {
    for (const worker of this.#workers.values()) this.#store.elastic.disconnected(worker);
    this.#workers.clear();
  }
}
