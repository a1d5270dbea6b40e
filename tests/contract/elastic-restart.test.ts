/** Elastic pools over a restart: what was kept is there again, what was not is told lost, and who lives on keeps what it has. */

import { expect, test } from "bun:test";
import { until } from "../harness/app.ts";
import { refusalOf, TrialPool } from "../harness/trial-pool.ts";

test("pools, runs, limits and page numbers are there after a restart, and no number comes twice", async () => {
  await using trial = await TrialPool.open();
  await trial.map(3, { evictable: true });
  await trial.map(2);
  await trial.unmap(1, 1).ended;
  await trial.unmap(3, 2).ended;
  const { elastic } = trial.app.store;
  elastic.change(trial.pool, { minimumBytes: trial.pool.pageSize, maximumBytes: 8 * trial.pool.pageSize });
  // The highest number is one that no change of the pool has written down, and no run any more.
  await trial.map(1);
  await trial.unmap(1, 1).ended;
  const before = { ...trial.describe(), sequence: 0 };
  const { token, createdAt, revision } = trial.pool;
  await trial.restart();
  expect({ ...trial.describe(), sequence: 0 }).toMatchObject({
    ...before,
    runs: before.runs.map(({ lastUsedAt: _, ...run }) => run),
    survivesRestart: true,
  });
  expect(trial.pool).toMatchObject({ token, createdAt, revision, minimumBytes: trial.pool.pageSize });
  expect([trial.charged, trial.card.pages.size]).toEqual([2, 2]);
  expect(await trial.map(1)).toMatchObject({ firstPage: 7 });
  const worker = trial.attach();
  await worker.take();
  expect([...worker.held.keys()].toSorted()).toEqual([1, 3, 7]);
});

test("a worker that lives on keeps everything until it says what it has, and nobody takes its slot", async () => {
  await using trial = await TrialPool.open();
  await trial.map(4);
  const worker = trial.attach();
  await worker.take(2);
  worker.disconnect();
  await trial.restart();
  expect(trial.describe().workers).toMatchObject([{ slot: 0, isConnected: false, takenPages: 4 }]);
  expect(await refusalOf(() => trial.app.store.elastic.compact(trial.pool))).toBe("in-use");
  const operation = trial.unmap(2, 2);
  expect(trial.attach().slot).toBe(1);
  expect(operation.endedAt).toBeNull();
  await worker.reconnect(trial.app.store, trial.pool);
  await operation.ended;
  expect(trial.describe().workers).toMatchObject([{ slot: 0, isConnected: true, takenPages: 2 }, {}]);
  expect(trial.card.pages.size).toBe(2);
});

test("what a stop cuts in two stays mapped, and is told to: only what nobody had is gone", async () => {
  await using trial = await TrialPool.open();
  await trial.map(4);
  const worker = trial.attach();
  await worker.take();
  const operation = trial.unmap(0, 2);
  worker.disconnect();
  await trial.restart();
  expect(operation).toMatchObject({ state: "failed", failure: { code: "shutting-down" } });
  expect(trial.told.at(-1)).toMatchObject({ type: "tensord.vmm.mapped", data: { reason: "undone" } });
  expect(trial.runs).toEqual([
    [0, 2, 1],
    [2, 2, 3],
  ]);
});

test("pages that nobody kept are told lost, their neighbours stay, and what no row tells of is freed", async () => {
  await using trial = await TrialPool.open();
  await trial.map(4);
  const { token } = trial.pool;
  await trial.app.leave();
  await trial.holder.drop(`${token}.2.page`);
  await trial.holder.keep(`${token}.99.page`, trial.holder.held.get(`${token}.pool`) ?? -1);
  await trial.reopen();
  expect(trial.runs).toEqual([
    [0, 1, 1],
    [2, 2, 3],
  ]);
  expect(trial.told.at(-1)).toMatchObject({
    data: { reason: "lost", runs: [{ byte_offset: 2 ** 21, first_page: 2 }] },
  });
  expect([...trial.holder.held.keys()].toSorted()).toEqual(
    ["1.page", "3.page", "4.page", "pool"].map((name) => `${token}.${name}`),
  );
  expect(trial.charged).toBe(3);
  // What was lost once is not told again.
  await trial.restart();
  expect(trial.told.filter(({ data }) => data.reason === "lost")).toHaveLength(1);
});

test("a run whose session did not come back leaves at the start", async () => {
  await using trial = await TrialPool.open();
  const opened = await trial.app.ok<{ id: string }>(201, "POST", "/v1/sessions", { ttl_ms: 60_000 });
  const session = trial.app.store.books.session(opened.id);
  await trial.map(2, { session });
  await trial.map(1);
  await trial.app.leave();
  await trial.reopen((app) => app.store.journal.deleteSession(session.key));
  await trial.restart();
  expect(trial.runs).toEqual([[2, 1, 3]]);
  await until("they are free", () => trial.charged === 1);
});

test("without an fd holder the pool is there again, all of its pages are told lost, and its workers attach anew", async () => {
  await using trial = await TrialPool.open({}, false);
  await trial.map(2);
  expect(trial.describe().survivesRestart).toBeFalse();
  const worker = trial.attach();
  await worker.take();
  worker.disconnect();
  await trial.restart();
  expect([trial.runs, trial.charged, trial.describe().workers]).toEqual([[], 0, []]);
  expect(trial.told.at(-1)).toMatchObject({ data: { reason: "lost", runs: [{ first_page: 1, byte_size: 2 ** 22 }] } });
  expect(await refusalOf(() => worker.reconnect(trial.app.store, trial.pool))).toBe("lease-not-found");
  expect(trial.attach().slot).toBe(0);
  expect(await trial.map(1)).toMatchObject({ firstPage: 3 });
});
