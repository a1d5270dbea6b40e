/**
 * Elastic pools whose driver, server, fd holder or workers fail at each call and each step, on the stand-in driver: it shows what is undone and what
 * stays, and nothing about a GPU.
 */

import { afterAll, expect } from "bun:test";
import { CudaStandIn, needsStandIn } from "../harness/cuda-stand-in.ts";
import { device, ElasticServer, type Pool } from "../harness/elastic-server.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { needsPython, testWith } from "../harness/instance-needs.ts";
import { PageWorker } from "../harness/page-worker.ts";
import { type KillPoint, startServer, type TestServer } from "../harness/server.ts";
import { until } from "../harness/server-wait.ts";
import { at } from "./scenario.ts";

afterAll(assertNothingLeft);

const testOnStandIn = testWith(needsStandIn, needsPython);
const unknown = 999;
const warnings = [/^Cannot free page /, /^tensord\.vmm\.unmapped/, /fd holder/];

const failure = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "",
    (error: Error) => error.message,
  );

testOnStandIn("a driver that fails at any call of a mapping leaves nothing of it, or says what it leaves", async () => {
  await using cuda = new CudaStandIn();
  await using server = await startServer({ env: cuda.env });
  server.log.expect(...warnings);
  const elastic = new ElasticServer(server, cuda);
  await elastic.make();
  await elastic.map(2);
  for (const call of ["cuMemCreate", "cuMemExportToShareableHandle"]) {
    for (const count of [1, 2, 3]) {
      cuda.order(`${call} ${count} ${unknown}`);
      expect(await failure(elastic.map(3)), `${call} ${count}`).toContain("CUDA_ERROR_UNKNOWN");
      expect((await elastic.atRest()).mapped_bytes / 2 ** 21).toBe(2);
    }
  }
  cuda.order("cuMemCreate 2 2");
  expect(await failure(elastic.map(3))).toContain("out-of-device-memory");
  // A second failure, inside the undo.
  cuda.order(`cuMemCreate 3 ${unknown}`, `cuMemRelease 1 ${unknown}`);
  expect(await failure(elastic.map(3))).toContain("CUDA_ERROR_UNKNOWN");
  const wasStuck = cuda.countOrdered("cuMemRelease");
  expect(wasStuck).toBe(1);
  await elastic.atRest();
  await elastic.map(3);
  cuda.order(`cuMemRelease 2 ${unknown}`);
  await elastic.unmap(0, 5);
  expect((await elastic.atRest()).mapped_bytes).toBe(0);
  expect(cuda.countOrdered("cuMemRelease")).toBe(2);
  await elastic.remove();
});

testOnStandIn("a worker that is killed has nothing any more, and one that lives keeps what it has", async () => {
  await using cuda = new CudaStandIn();
  await using server = await startServer({ env: cuda.env });
  const elastic = new ElasticServer(server, cuda);
  await elastic.make();
  await elastic.map(4);
  const doomed = new PageWorker(server, device);
  await using other = new PageWorker(server, device);
  for (const worker of [doomed, other]) {
    await worker.attach();
    expect(await worker.converge()).toEqual([1, 2, 3, 4]);
  }
  await elastic.unmap(0, 2);
  expect((await elastic.pool()).leaving).toMatchObject([{ taken_by: [0, 1] }]);
  await other.converge();
  expect((await elastic.pool()).leaving).toMatchObject([{ taken_by: [0] }]);
  await doomed.kill();
  await until("it went with the worker", async () => (await elastic.pool()).leaving.length === 0);
  await elastic.atRest();
  await other.check();
  expect(await failure(elastic.remove())).toContain("in-use");
  await other.leave();
  await elastic.remove();
});

/** A server with a worker that has all there is; the server is killed at a step of some work, and comes back. */
class Killed {
  readonly server: TestServer;
  readonly elastic: ElasticServer;
  readonly worker: PageWorker;

  private constructor(server: TestServer, elastic: ElasticServer) {
    this.server = server;
    this.elastic = elastic;
    this.worker = new PageWorker(server, device);
  }

  static async run(use: (killed: Killed) => Promise<void>): Promise<void> {
    await using cuda = new CudaStandIn();
    await using server = await startServer({ env: cuda.env, isStepped: true });
    server.log.expect(...warnings);
    const killed = new Killed(server, new ElasticServer(server, cuda));
    await using _ = killed.worker;
    await killed.elastic.make();
    await killed.elastic.map(2);
    await killed.worker.attach();
    await killed.worker.converge();
    await use(killed);
  }

  /** @returns what there is after that, which is what the books say, whole to every worker. */
  async at(kill: KillPoint, work: () => Promise<unknown>): Promise<Pool> {
    this.server.killAfter(kill);
    const working = failure(work());
    expect(await this.server.exited(), kill.step).toBe("SIGKILL");
    await working;
    await this.server.start();
    await this.worker.attach();
    await this.worker.converge();
    const pool = await this.elastic.atRest();
    await this.worker.check();
    return pool;
  }
}

testOnStandIn("the server killed at each step of a mapping leaves all of it, or nothing", () =>
  Killed.run(async (killed) => {
    for (const kill of [
      ...at("vmm.page-created", "vmm.page-kept"),
      { step: "vmm.page-created", count: 2 },
      { step: "holder.kept", count: 2 },
    ] as const) {
      expect((await killed.at(kill, () => killed.elastic.map(2))).runs, kill.step).toHaveLength(1);
    }
    expect((await killed.at({ step: "vmm.map-journaled" }, () => killed.elastic.map(2))).runs).toHaveLength(2);
  }),
);

testOnStandIn("the server killed at each step of an unmapping leaves the pages where they were, or frees them", () =>
  Killed.run(async (killed) => {
    const { elastic, worker } = killed;
    await elastic.map(2);
    await worker.converge();
    for (const kill of at("vmm.announced", "vmm.unmap-journaled", "vmm.page-freed")) {
      const pool = await killed.at(kill, async () => {
        await elastic.unmap(2, 2);
        await worker.converge();
      });
      // What was announced and not gone yet stays: nobody was told that it is gone.
      expect(pool.runs.length, kill.step).toBe(kill.step === "vmm.announced" ? 2 : 1);
      if (pool.runs.length === 1) await elastic.map(2);
    }
  }),
);

testOnStandIn("the server killed in the middle of a move, or of a deletion, has done all of it when it is back", () =>
  Killed.run(async (killed) => {
    const { elastic, server, worker } = killed;
    await elastic.unmap(0, 1);
    await worker.converge();
    await elastic.atRest();
    const moved = await killed.at({ step: "vmm.moves-journaled" }, () => elastic.compact());
    expect(moved.runs).toMatchObject([{ byte_offset: 0, first_page: 2 }]);
    await worker.leave();
    server.killAfter({ step: "vmm.pool-row-deleted" });
    await failure(elastic.remove());
    await server.exited();
    await server.start();
    await until("all of it is free", () => elastic.inUse === 0);
    expect(await failure(elastic.pool())).toContain("vmm-pool-not-found");
    server.killAfter({ step: "vmm.pool-journaled" });
    await failure(elastic.make());
    await server.exited();
    await server.start();
    expect((await elastic.pool()).runs).toEqual([]);
  }),
);

testOnStandIn("pages survive the fd holder's death and the server's, and what both took is told lost", async () => {
  await using cuda = new CudaStandIn();
  await using server = await startServer({ env: cuda.env });
  server.log.expect(...warnings);
  const elastic = new ElasticServer(server, cuda);
  await elastic.make();
  await elastic.map(3);
  await using worker = new PageWorker(server, device);
  await worker.attach();
  await worker.converge();
  await elastic.killHolder();
  await until("all is kept again", async () => (await elastic.pool()).survives_restart);
  await server.crash();
  expect((await elastic.pool()).workers).toMatchObject([{ slot: 0, is_connected: false, taken_pages: 3 }]);
  await worker.attach();
  expect(await worker.converge()).toEqual([1, 2, 3]);
  await elastic.atRest();
  await worker.leave();
  await elastic.remove();
});
