/**
 * A server with an elastic pool on the stand-in driver, and workers in processes of their own, to which anything happens in any order: pages come, go
 * and move, driver calls fail, in the undo too, and workers, server and fd holder get a SIGKILL. At each rest the books say what of the card
 * some process has, every worker has the same pages, and each page holds what was written to it.
 */

import { afterAll, expect } from "bun:test";
import { CudaStandIn, needsStandIn } from "../harness/cuda-stand-in.ts";
import { device, ElasticServer, type Operation } from "../harness/elastic-server.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { needsPython, testWith } from "../harness/instance-needs.ts";
import { Random } from "../harness/instance-random.ts";
import { PageWorker, Unable } from "../harness/page-worker.ts";
import { deadlineMsOf, roundsOf } from "../harness/rounds.ts";
import { startServer } from "../harness/server.ts";
import { NoAnswer, Refused } from "../harness/server-api.ts";
import { until } from "../harness/server-wait.ts";

afterAll(assertNothingLeft);

const rounds = roundsOf("elastic-killed-at-random");
const stepsOfRound = 15;
const capacity = 24;
/** What others' requests, the driver or a death may refuse. */
const allowed =
  /already-mapped|not-mapped|out-of-range|out-of-device-memory|pool-full|in-use|io-error|operation-not-found|cancelled/;

class Party {
  readonly #random: Random;
  readonly #elastic: ElasticServer;
  readonly #workers = new Set<PageWorker>();
  readonly #operations: Operation[] = [];
  readonly counts: Record<string, number> = {};

  constructor(random: Random, elastic: ElasticServer) {
    this.#random = random;
    this.#elastic = elastic;
  }

  async step(): Promise<void> {
    const random = this.#random;
    const weights = { map: 4, unmap: 3, cancel: 1, trim: 1, compact: 1, attach: 3, converge: 4, kill: 1, fail: 1 };
    const names = Object.entries(weights).flatMap(([name, weight]) => new Array<string>(weight).fill(name));
    const deed = random.pick(names);
    this.counts[deed] = (this.counts[deed] ?? 0) + 1;
    try {
      await this.#do(deed);
    } catch (error) {
      if (!(error instanceof Refused || error instanceof Unable) || !allowed.test(error.message)) throw error;
    }
  }

  async #do(deed: string): Promise<unknown> {
    const random = this.#random;
    const elastic = this.#elastic;
    const index = random.integer(0, capacity - 1);
    const count = random.integer(1, Math.min(5, capacity - index));
    const [one] = random.isTrue(0.5) ? this.#workers : [...this.#workers].toReversed();
    switch (deed) {
      case "map":
        return elastic.map(count, random.isTrue(0.5) ? index : undefined);
      case "unmap":
        return this.#operations.push(await elastic.unmap(index, count));
      case "cancel":
        return this.#operations.length === 0 ? undefined : elastic.cancel(random.pick(this.#operations));
      case "trim":
        return elastic.trim();
      case "compact":
        return elastic.compact();
      case "attach":
        return this.#workers.size < 3 ? this.#add() : undefined;
      case "converge":
        return one?.converge();
      case "kill":
        if (one !== undefined) this.#workers.delete(one);
        return one?.kill();
      default:
        // One call of each process fails, and with it maybe one of what undoes that.
        return elastic.cuda.order(
          `${random.pick(["cuMemCreate", "cuMemExportToShareableHandle"])} ${random.integer(1, 4)} 999`,
          `cuMemRelease ${random.integer(1, 3)} 999`,
        );
    }
  }

  async #add(): Promise<void> {
    const worker = new PageWorker(this.#elastic.server, device);
    this.#workers.add(worker);
    await worker.attach();
  }

  /** In the middle of what it does; who works on keeps what he has. */
  async crash(): Promise<void> {
    const random = this.#random;
    const { server } = this.#elastic;
    this.counts.crash = (this.counts.crash ?? 0) + 1;
    const work = [this.#elastic.map(4), this.#elastic.unmap(random.integer(0, capacity - 4), 3), this.#elastic.trim()];
    const settled = Promise.allSettled(work);
    await Bun.sleep(random.integer(0, 5));
    await server.crash();
    for (const each of await settled) {
      const isExpected =
        each.status === "fulfilled" || each.reason instanceof NoAnswer || each.reason instanceof Refused;
      if (!isExpected) throw each.reason;
    }
    this.#operations.length = 0;
    for (const worker of [...this.#workers]) {
      if (random.isTrue(0.7)) await worker.attach();
      else {
        this.#workers.delete(worker);
        await worker.kill();
      }
    }
  }

  async rest(): Promise<void> {
    this.#elastic.cuda.order("none 1 0");
    // Twice: what the first lets go of is freed by the second.
    for (const worker of this.#workers) await worker.converge();
    await this.#elastic.atRest();
    const pages = (await this.#elastic.pages()).toSorted((one, other) => one - other);
    for (const worker of this.#workers) expect(await worker.converge()).toEqual(pages);
    await this.#elastic.atRest();
  }

  async close(): Promise<void> {
    for (const worker of this.#workers) await worker.kill();
    // Their connections end a moment later.
    await until("no worker is attached", async () => (await this.#elastic.pool()).workers.length === 0);
    await this.#elastic.remove();
  }
}

testWith(needsStandIn, needsPython)(
  `${rounds} rounds with kills at random lose no page, and leave none that nobody knows of`,
  async () => {
    const random = new Random();
    console.log(`TEST_SEED=${random.seed}`);
    await using cuda = new CudaStandIn();
    await using server = await startServer({ env: cuda.env });
    server.log.expect(/^Cannot free page /, /^tensord\.vmm\.unmapped/, /fd holder/);
    const elastic = new ElasticServer(server, cuda);
    await elastic.make(capacity);
    const party = new Party(random, elastic);
    for (let round = 0; round < rounds; round++) {
      for (let step = 0; step < stepsOfRound; step++) await party.step();
      if (random.isTrue(0.5)) await party.crash();
      if (random.isTrue(0.2)) await elastic.killHolder();
      await party.rest();
    }
    await party.close();
    console.log(JSON.stringify(party.counts));
  },
  deadlineMsOf(rounds, 60_000),
);
