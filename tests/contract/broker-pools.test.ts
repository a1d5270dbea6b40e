/** Elastic pools over the broker: who is attached, what is handed out, and that nothing goes that a worker has. The device is made up. */

import { describe, expect, test } from "bun:test";
import { closeSync, fstatSync, readSync } from "node:fs";
import { limits } from "../../src/memory/limits.ts";
import { duplicateDescriptor, isLocked } from "../../src/memory/os/libc.ts";
import { anybody } from "../../src/routes/access/caller.ts";
import { PoolDesk } from "../../src/server/broker/pool-desk.ts";
import type { ElasticRequest } from "../../src/server/broker/requests.ts";
import { createRunsFile, toTable } from "../../src/server/broker/runs-file.ts";
import type { ElasticPoolDetail } from "../../src/server/cli/answers.ts";
import { fakeDevice } from "../conformance/support/fake-device.ts";
import { type TestApp, until, withApp } from "../harness/app.ts";
import type { BrokerClient, Received } from "../harness/broker-client.ts";
import { tokenOf } from "../harness/tokens-file.ts";
import { type OpenBroker, withBroker } from "./support/broker.ts";
import { endOf, type Operation } from "./support/operations.ts";
import { makePool, mapAt, pagesBytes as page, poolPath, withPools } from "./support/pools.ts";

const device = fakeDevice.uuid;

interface Worker {
  readonly client: BrokerClient;
  readonly pool: string;
  readonly slot: number;
  readonly slotFd: number;
  readonly runs: readonly (readonly [number, number, number])[];
  readonly sequence: string;
}

function readRuns({ reply, descriptors }: Received): Worker["runs"] {
  const { runs_byte_size: byteSize, fds = [] } = reply as Received["reply"] & { runs_byte_size: number };
  const fd = descriptors[fds.indexOf("runs")] ?? -1;
  expect(fstatSync(fd).size).toBe(byteSize);
  const bytes = Buffer.alloc(byteSize);
  expect(readSync(fd, bytes, 0, byteSize, 0)).toBe(byteSize);
  return JSON.parse(bytes.toString()) as Worker["runs"];
}

async function attach(client: BrokerClient, more: object = {}): Promise<Worker> {
  const received = await client.ok("pool", { model: "default", device_uuid: device, moves: true, ...more });
  const { pool, slot, sequence } = received.reply as unknown as Worker;
  return { client, pool, slot, sequence, slotFd: received.descriptors[0] ?? -1, runs: readRuns(received) };
}

const look = (app: TestApp) => app.ok<ElasticPoolDetail>(200, "GET", poolPath());

async function beginUnmap(app: TestApp, byteOffset: number, byteSize: number): Promise<Operation> {
  const asked = { byte_offset: byteOffset, byte_size: byteSize };
  return await app.ok<Operation>(202, "POST", `${poolPath()}/unmap`, asked);
}

const withWorkers = (use: (server: OpenBroker) => Promise<void>) => withBroker(use, {}, withPools);

describe("pool", () => {
  test(
    "attaches a worker, whose slot is locked before it is sent, and hands it the whole map with the event at which it is true",
    withWorkers(async ({ app, connect }) => {
      const { id, virtual_capacity: capacity } = await makePool(app);
      await mapAt(app, 0, 2 * page);
      await mapAt(app, 4 * page, page);
      const client = await connect({ client: { name: "trainer" } });
      const received = await client.ok("pool", { device_uuid: device, moves: true });
      expect(received.reply).toMatchObject({
        ...{ pool: id, slot: 0, virtual_capacity: capacity, page_size: page, fds: ["slot", "runs"] },
        sequence: String(app.store.events.last),
      });
      expect(readRuns(received)).toEqual([
        [0, 2 * page, 1],
        [4 * page, page, 3],
      ]);
      const { workers } = await look(app);
      expect(workers).toMatchObject([
        { slot: 0, client: "trainer", agrees_to_moves: true, taken_pages: 0, is_connected: true, overdue: [] },
      ]);
      const second = await attach(await connect());
      // Of another description, which sees the lock of the first.
      expect([second.slot, isLocked(second.slotFd, 0n, 1n)]).toEqual([1, true]);
    }),
  );

  test(
    "is a refresh for who is attached: the map, and nothing else",
    withWorkers(async ({ app, connect }) => {
      await makePool(app);
      const worker = await attach(await connect());
      expect(worker.runs).toEqual([]);
      await mapAt(app, page, page);
      const again = await worker.client.ok("pool", { device_uuid: device, moves: true });
      expect(again.reply).toMatchObject({ slot: worker.slot, fds: ["runs"] });
      expect(readRuns(again)).toEqual([[page, page, 1]]);
      expect((await look(app)).workers.length).toBe(1);
    }),
  );

  test(
    "is asked by a worker again over another connection, with its slot and what it has; a slot that nobody holds is refused",
    withWorkers(async ({ app, connect }) => {
      await makePool(app);
      await mapAt(app, 0, 3 * page);
      const first = await attach(await connect());
      await first.client.ok("take", { pool: first.pool, pages: [[1, 3]] });
      const held = duplicateDescriptor(first.slotFd);
      first.client.close();
      await until("the connection is over", async () => (await look(app)).workers[0]?.is_connected === false);
      const { client } = await attach(await connect(), { slot: first.slot, taken: [[2, 2]] });
      expect((await look(app)).workers).toMatchObject([{ slot: first.slot, taken_pages: 2, is_connected: true }]);
      const problem = await client.problem("pool", { device_uuid: device, moves: true, taken: [[1, 1]] });
      expect(problem.code).toBe("validation-failed");
      const other = await connect();
      expect((await other.problem("pool", { device_uuid: device, moves: true, slot: 7 })).code).toBe("lease-not-found");
      expect((await other.problem("pool", { device_uuid: device, moves: true, slot: 0 })).code).toBe("in-use");
      closeSync(held);
    }),
  );

  test(
    "of none is vmm-pool-not-found, and what a reader may not attach to is forbidden",
    withBroker(
      async ({ app, connect }) => {
        app.token = tokenOf("ops");
        const client = await connect({ token: tokenOf("ops") });
        const none = await client.problem("pool", { device_uuid: device, moves: true });
        expect(none).toMatchObject({ code: "vmm-pool-not-found", model: "default", device_uuid: device });
        await makePool(app);
        for (const [token, code] of [
          ["reader", "forbidden"],
          ["held", "forbidden"],
        ] as const) {
          const refused = await connect({ token: tokenOf(token) });
          expect((await refused.problem("pool", { device_uuid: device, moves: true })).code).toBe(code);
        }
        await attach(await connect({ token: tokenOf("worker") }));
      },
      {},
      {
        ...withPools,
        tokens: [
          { name: "ops", role: "admin", token: tokenOf("ops") },
          { name: "reader", role: "reader", token: tokenOf("reader") },
          { name: "worker", role: "worker", token: tokenOf("worker") },
          { name: "held", role: "worker", token: tokenOf("held"), models: ["llama"] },
        ],
      },
    ),
  );
});

describe("take and let_go", () => {
  test(
    "hand out a descriptor for each page that is mapped, and say which are not",
    withWorkers(async ({ app, connect }) => {
      await makePool(app);
      await mapAt(app, 0, 3 * page);
      const { client, pool, slot } = await attach(await connect());
      const { reply, descriptors } = await client.ok("take", { pool, pages: [[2, 4]] });
      expect(reply).toMatchObject({ pages: [2, 3], gone: [4, 5], fds: ["handle", "handle"] });
      // Memory of the device is a file of a page here.
      expect(descriptors.map((fd) => fstatSync(fd).size)).toEqual([page, page]);
      expect((await look(app)).workers).toMatchObject([{ slot, taken_pages: 2, taken_bytes: 2 * page }]);
      const sequence = String(app.store.events.last);
      expect((await client.ok("let_go", { pool, pages: [[1, 2]], sequence })).text).toBe('{"id":4,"ok":true}');
      expect((await look(app)).workers).toMatchObject([{ taken_pages: 1, acknowledged: sequence }]);
    }),
  );

  test(
    "as many pages at once as a message may carry, and no more",
    withWorkers(async ({ app, connect }) => {
      await makePool(app, { virtual_capacity: 251 * page, page_size: page });
      const lent = app.store.books.pools.get(device);
      lent.limitBytes = 251 * page;
      const { client, pool } = await attach(await connect());
      const { reply } = await client.ok("take", { pool, pages: [[1, 250]] });
      expect(reply).toMatchObject({ pages: [], fds: [] });
      const problem = await client.problem("take", { pool, pages: [[1, 251]] });
      expect([problem.code, problem.issues?.[0]?.message]).toEqual([
        "validation-failed",
        `want at most ${limits.brokerDescriptors} pages`,
      ]);
      await mapAt(app, 0, 100 * page);
      expect((await client.ok("take", { pool, pages: [[1, 100]] })).descriptors.length).toBe(100);
    }),
  );

  test(
    "keep pages that leave: an unmap ends when the last worker has let go of them",
    withWorkers(async ({ app, connect }) => {
      await makePool(app);
      await mapAt(app, 0, 2 * page);
      const [one, two] = [await attach(await connect()), await attach(await connect())];
      for (const { client, pool } of [one, two]) await client.ok("take", { pool, pages: [[1, 2]] });
      const operation = await beginUnmap(app, 0, 2 * page);
      expect(await look(app)).toMatchObject({
        ...{ mapped_bytes: 0, physical_bytes: 2 * page, runs: [] },
        leaving: [{ byte_offset: 0, byte_size: 2 * page, state: "leaving", taken_by: [0, 1] }],
      });
      const letGo = ({ client, pool }: Worker, pages: readonly (readonly number[])[]) =>
        client.ok("let_go", { pool, pages, sequence: String(app.store.events.last) });
      await letGo(one, [[1, 2]]);
      await letGo(two, [[1, 1]]);
      expect((await look(app)).physical_bytes).toBe(2 * page);
      // What leaves is not handed out any more.
      const { reply } = await one.client.ok("take", { pool: one.pool, pages: [[2, 1]] });
      expect(reply).toMatchObject({ pages: [], gone: [2] });
      await letGo(two, [[2, 1]]);
      expect(await endOf(app, operation)).toMatchObject({ state: "succeeded", done_bytes: 2 * page });
      expect((await look(app)).physical_bytes).toBe(0);
    }),
  );

  test(
    "keep what a worker has whose connection has ended, for as long as its slot is locked, and no longer",
    withWorkers(async ({ app, connect }) => {
      await makePool(app);
      await mapAt(app, 0, page);
      const worker = await attach(await connect());
      await worker.client.ok("take", { pool: worker.pool, pages: [[1, 1]] });
      const held = duplicateDescriptor(worker.slotFd);
      worker.client.close();
      await until("the connection is over", async () => (await look(app)).workers[0]?.is_connected === false);
      const operation = await beginUnmap(app, 0, page);
      expect(await look(app)).toMatchObject({ physical_bytes: page, leaving: [{ taken_by: [0] }] });
      closeSync(held);
      expect(await endOf(app, operation)).toMatchObject({ state: "succeeded" });
      expect(await look(app)).toMatchObject({ physical_bytes: 0, workers: [] });
    }),
  );

  test(
    "and a cancelled unmap: the pages are mapped again, under the same numbers",
    withWorkers(async ({ app, connect }) => {
      await makePool(app);
      await mapAt(app, 0, page);
      const { client, pool } = await attach(await connect());
      await client.ok("take", { pool, pages: [[1, 1]] });
      const { id } = await beginUnmap(app, 0, page);
      expect(await app.ok<object>(200, "DELETE", `/v1/operations/${id}`)).toMatchObject({ state: "cancelled" });
      expect(await look(app)).toMatchObject({ mapped_bytes: page, runs: [{ first_page: 1, state: "mapped" }] });
      const again = await client.ok("pool", { device_uuid: device, moves: true });
      expect(readRuns(again)).toEqual([[0, page, 1]]);
    }),
  );

  test(
    "of a pool to which the connection is not attached are refused",
    withWorkers(async ({ app, connect }) => {
      const { id: pool } = await makePool(app);
      const client = await connect();
      for (const [op, more] of [
        ["take", { pages: [[1, 1]] }],
        ["let_go", { pages: [], sequence: "1" }],
        ["leave", {}],
      ] as const) {
        const { code, hint } = await client.problem(op, { pool, ...more });
        expect([code, hint]).toEqual(["validation-failed", "Attach to the pool first, over the same connection."]);
      }
    }),
  );
});

test(
  "an answer that was not sent is taken back: nobody is attached by it, and no page is had",
  withApp(async (app) => {
    const { id: pool } = await makePool(app);
    await mapAt(app, 0, 3 * page);
    const desk = new PoolDesk(app.store);
    const peer = { caller: anybody, session: null, client: null };
    const ask = async (request: ElasticRequest, isSent: boolean) => {
      using answer = await desk.answer(request, peer);
      if (isSent) answer.sent();
      return answer.descriptors.map(duplicateDescriptor);
    };
    const attaching = { id: 1, op: "pool", device_uuid: device, moves: true } as const;
    expect(await ask(attaching, false).then(closeAll)).toBe(2);
    expect((await look(app)).workers).toEqual([]);
    const kept = await ask(attaching, true);
    const taking = (pages: [number, number][]) => ({ id: 2, op: "take", pool, pages }) as const;
    closeAll(await ask(taking([[1, 1]]), true));
    expect(await ask(taking([[1, 3]]), false).then(closeAll)).toBe(3);
    expect((await look(app)).workers).toMatchObject([{ taken_pages: 1 }]);
    closeAll(kept);
    desk.ended();
  }, withPools),
);

function closeAll(fds: readonly number[]): number {
  for (const fd of fds) closeSync(fd);
  return fds.length;
}

test(
  "a pool with workers is not deleted, is compacted if all of them agree, and is trimmed of what none has; who leaves is none",
  withWorkers(async ({ app, connect }) => {
    await makePool(app);
    await mapAt(app, page, 2 * page);
    const agreeing = await attach(await connect());
    const other = await attach(await connect(), { moves: false });
    await agreeing.client.ok("take", { pool: agreeing.pool, pages: [[1, 1]] });
    expect(await app.refused("in-use", "DELETE", poolPath())).toMatchObject({ workers: ["worker 0", "worker 1"] });
    expect(await app.refused("in-use", "POST", `${poolPath()}/compact`)).toMatchObject({ workers: ["worker 1"] });
    await other.client.ok("leave", { pool: other.pool });
    expect(await app.ok<object>(200, "POST", `${poolPath()}/trim`)).toMatchObject({ freed_bytes: page });
    const { moves } = await app.ok<{ moves: object[] }>(200, "POST", `${poolPath()}/compact`);
    expect(moves).toMatchObject([{ from_byte_offset: page, to_byte_offset: 0, byte_size: page, first_page: 1 }]);
    await agreeing.client.ok("leave", { pool: agreeing.pool });
    expect(await app.ok<object>(200, "DELETE", poolPath())).toEqual({ state: "deleted", freed_bytes: page });
  }),
);

test("the map of as many runs as a pool can have is written in turns between which others have theirs", async () => {
  const count = limits.elasticPages / 2;
  const runs = Array.from({ length: count }, (_, index) => ({
    byteOffset: 2 * index * page,
    byteSize: page,
    firstPage: index + 1,
  }));
  let turns = 0;
  const timer = setInterval(() => turns++, 0);
  using file = await createRunsFile(toTable(runs));
  clearInterval(timer);
  expect(turns).toBeGreaterThan(0);
  const bytes = Buffer.alloc(file.byteSize);
  readSync(file.fd, bytes, 0, bytes.length, 0);
  expect(JSON.parse(bytes.toString())).toEqual(runs.map((run) => [run.byteOffset, run.byteSize, run.firstPage]));
});
