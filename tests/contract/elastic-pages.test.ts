/** Pages of an elastic pool come whole or not at all, go when nobody has them, and are charged as long as they are there. */

import { expect, test } from "bun:test";
import { cancelOperation } from "../../src/memory/operations/run.ts";
import { until } from "../harness/app.ts";
import type { TrialCall } from "../harness/trial-card.ts";
import { pageSize, refusalOf, TrialPool } from "../harness/trial-pool.ts";

/** Fails calls of this kind: the one after so many, or all of them from there on. */
function failing(trial: TrialPool, calls: Partial<Record<TrialCall, readonly [after: number, count: number]>>): void {
  const made: Partial<Record<TrialCall, number>> = {};
  trial.card.fails = (call) => {
    const at = made[call] ?? 0;
    made[call] = at + 1;
    const [after, count] = calls[call] ?? [Number.POSITIVE_INFINITY, 0];
    return at >= after && at < after + count;
  };
}

test("map makes all of its pages, in the first hole that fits or where it is told, or none", async () => {
  await using trial = await TrialPool.open();
  expect(await trial.map(3)).toMatchObject({ byteOffset: 0, byteSize: 3 * pageSize, firstPage: 1, state: "mapped" });
  await trial.map(2, { byteOffset: 5 * pageSize });
  await trial.map(2);
  await trial.map(3);
  expect(trial.runs).toEqual([
    [0, 3, 1],
    [3, 2, 6],
    [5, 2, 4],
    [7, 3, 8],
  ]);
  const before = { runs: trial.runs, pages: trial.card.pages, charged: trial.charged, told: trial.told.length };
  for (const [call, after] of [
    ["create", 0],
    ["create", 2],
    ["export", 0],
    ["export", 2],
  ] as const) {
    failing(trial, { [call]: [after, 1] });
    expect(await refusalOf(() => trial.map(3)), `${call} ${after}`).toBe("io-error");
    expect({ runs: trial.runs, pages: trial.card.pages, charged: trial.charged, told: trial.told.length }).toEqual(
      before,
    );
  }
  expect(await refusalOf(() => trial.map(1, { byteOffset: 6 * pageSize }))).toBe("already-mapped");
  expect(await refusalOf(() => trial.map(7))).toBe("out-of-range");
  expect(await refusalOf(() => trial.map(1, { byteOffset: 1 }))).toBe("out-of-range");
  expect(await refusalOf(() => trial.map(2, { byteOffset: 15 * pageSize }))).toBe("out-of-range");
});

test("a page that an undo does not give back is stuck: charged, named, tried again, and gone", async () => {
  await using trial = await TrialPool.open();
  failing(trial, { create: [2, 1], release: [0, 1] });
  expect(await refusalOf(() => trial.map(3))).toBe("io-error");
  expect(trial.describe()).toMatchObject({
    physicalBytes: pageSize,
    mappedBytes: 0,
    stuck: [{ page: 2 }],
    unreleased: [],
  });
  expect([trial.charged, trial.card.pages.size]).toEqual([1, 1]);
  expect(trial.app.store.elastic.owed).toMatchObject([
    { page: 2, isStuck: true, reason: expect.stringContaining("the test") },
  ]);
  await trial.untilNothingOwed();
  expect([trial.charged, trial.card.pages.size, trial.describe().stuck.length]).toEqual([0, 0, 0]);
});

test("unmap waits for each worker that has a page, and can be undone until nobody has one", async () => {
  await using trial = await TrialPool.open();
  await trial.map(6);
  const worker = trial.attach();
  await worker.take();
  const first = trial.unmap(2, 2);
  expect(trial.runs).toEqual([
    [0, 2, 1],
    [4, 2, 5],
  ]);
  expect(trial.describe()).toMatchObject({
    physicalBytes: 6 * pageSize,
    leaving: [{ byteOffset: 2 * pageSize, firstPage: 3, state: "leaving", takenBy: [worker.slot] }],
  });
  expect(await refusalOf(() => trial.unmap(3, 1))).toBe("not-mapped");
  expect(await refusalOf(() => trial.map(1, { byteOffset: 2 * pageSize }))).toBe("already-mapped");
  await cancelOperation(first);
  expect(first).toMatchObject({ state: "cancelled", failure: { code: "cancelled" } });
  expect(trial.told.at(-1)).toMatchObject({
    type: "tensord.vmm.mapped",
    data: { reason: "undone", runs: [{ first_page: 3 }] },
  });
  expect(trial.runs).toEqual([
    [0, 2, 1],
    [2, 2, 3],
    [4, 2, 5],
  ]);
  worker.follow();
  await worker.take();
  const second = trial.unmap(1, 4);
  worker.follow();
  expect([second.endedAt, trial.card.pages.size]).toEqual([null, 6]);
  worker.letGo();
  await second.ended;
  expect(second).toMatchObject({ kind: "unmap", state: "succeeded", result: null, doneBytes: 4 * pageSize });
  expect([trial.charged, trial.card.pages.size]).toEqual([2, 2]);
  await cancelOperation(second);
  expect(trial.runs).toEqual([
    [0, 1, 1],
    [5, 1, 6],
  ]);
});

test("an unmapping that nobody keeps is not undone any more", async () => {
  await using trial = await TrialPool.open();
  await trial.map(2);
  const { promise: held, resolve: goOn } = Promise.withResolvers<void>();
  trial.card.pause = () => held;
  const operation = trial.unmap(0, 2);
  // The driver is about to release them.
  await until("the row is gone", () => trial.describe().leaving.length === 0);
  const cancelled = cancelOperation(operation);
  goOn();
  await cancelled;
  expect([operation.state, trial.runs, trial.charged]).toEqual(["succeeded", [], 0]);
});

test("a page that the driver does not take back is out of the map, charged, and tried again", async () => {
  await using trial = await TrialPool.open();
  await trial.map(3);
  failing(trial, { release: [1, 1] });
  const operation = trial.unmap(0, 3);
  await operation.ended;
  expect(operation.state).toBe("succeeded");
  expect(trial.describe()).toMatchObject({ runs: [], physicalBytes: pageSize, unreleased: [{ page: 2 }], stuck: [] });
  expect(trial.charged).toBe(1);
  await trial.map(3);
  await trial.untilNothingOwed();
  expect([trial.charged, trial.card.pages.size]).toEqual([3, 3]);
});

test("a driver that does not answer is waited for once, whatever else goes", async () => {
  await using trial = await TrialPool.open();
  await trial.map(4);
  let releases = 0;
  trial.card.failure = "deadline-exceeded";
  trial.card.fails = (call) => {
    if (call === "release") releases += 1;
    return call === "release";
  };
  await trial.unmap(0, 4).ended;
  expect([releases, trial.describe().unreleased.length, trial.charged]).toEqual([1, 4, 4]);
  trial.card.fails = () => false;
  await trial.untilNothingOwed();
  expect([trial.charged, trial.card.pages.size]).toEqual([0, 0]);
});

test("a worker whose connection has ended keeps what it has as long as it lives, and not a moment longer", async () => {
  await using trial = await TrialPool.open();
  await trial.map(2);
  const worker = trial.attach();
  await worker.take();
  worker.disconnect();
  const operation = trial.unmap(0, 2);
  expect(trial.describe().workers).toMatchObject([{ slot: 0, isConnected: false, takenPages: 2 }]);
  expect(await refusalOf(() => trial.app.store.elastic.remove(trial.pool, undefined))).toBe("in-use");
  expect(operation.endedAt).toBeNull();
  await worker.die();
  await operation.ended;
  expect(trial.card.pages.size).toBe(0);
  expect(trial.describe().workers).toEqual([]);
});

test("a slot is for who has locked it: not for a second one, and not for who says so", async () => {
  await using trial = await TrialPool.open();
  const { elastic } = trial.app.store;
  const worker = trial.attach();
  const asked = { taken: [], agreesToMoves: true, session: null, client: null };
  expect(await refusalOf(() => elastic.attachWorker(trial.pool, { ...asked, slot: 0 }))).toBe("in-use");
  expect(await refusalOf(() => elastic.attachWorker(trial.pool, { ...asked, slot: 1 }))).toBe("lease-not-found");
  expect(trial.attach().slot).toBe(1);
  await worker.leave();
  expect(trial.attach().slot).toBe(0);
});

test("trim gives back what no worker has, and leaves the rest", async () => {
  await using trial = await TrialPool.open();
  await trial.map(6);
  const worker = trial.attach();
  await worker.take(2);
  const { freedBytes } = await trial.app.store.elastic.trim(trial.pool, undefined);
  expect(freedBytes).toBe(4 * pageSize);
  expect(trial.runs).toEqual([[0, 2, 1]]);
  expect(trial.told.at(-1)).toMatchObject({ data: { reason: "trimmed", runs: [{ first_page: 3 }] } });
  expect((await trial.app.store.elastic.trim(trial.pool, undefined)).freedBytes).toBe(0);
});

test("compact closes holes by moving whole runs, and not under a worker that has not agreed to it", async () => {
  await using trial = await TrialPool.open();
  for (const pages of [2, 3, 1, 4]) await trial.map(pages);
  for (const [index, pages] of [
    [0, 1],
    [2, 3],
  ] as const) {
    await trial.unmap(index, pages).ended;
  }
  const { elastic } = trial.app.store;
  expect(trial.describe().fragmentation).toBeCloseTo(4 / 10);
  const unwilling = trial.attach(false);
  expect(await refusalOf(() => elastic.compact(trial.pool))).toBe("in-use");
  await unwilling.leave();
  const worker = trial.attach();
  await worker.take();
  const leaving = trial.unmap(9, 1);
  expect(await refusalOf(() => elastic.compact(trial.pool))).toBe("in-use");
  await cancelOperation(leaving);
  const { moves, sequence } = elastic.compact(trial.pool);
  expect(moves.map(({ fromByteOffset, toByteOffset, firstPage }) => [fromByteOffset, toByteOffset, firstPage])).toEqual(
    [
      [1, 0, 2],
      [5, 1, 6],
      [6, 2, 7],
      [9, 5, 10],
    ].map(([from = 0, to = 0, page = 0]) => [from * pageSize, to * pageSize, page]),
  );
  expect(trial.app.store.events.last).toBe(sequence);
  expect(trial.describe()).toMatchObject({ fragmentation: 0, largestFreeBytes: 10 * pageSize });
  worker.follow();
  await worker.take();
  expect([...worker.places]).toEqual([0, 1, 2, 3, 4, 5].map((at) => [at * pageSize, [2, 6, 7, 8, 9, 10][at] ?? 0]));
  expect(elastic.compact(trial.pool).moves).toEqual([]);
});

test("what leaves for long is overdue, and says who has it", async () => {
  await using trial = await TrialPool.open();
  const { store } = trial.app;
  await trial.map(3);
  const worker = trial.attach();
  await worker.take();
  const operation = trial.unmap(1, 2);
  expect(store.elastic.overdue).toEqual([]);
  const { now } = store;
  store.now = () => Date.now() + 11_000;
  expect(store.elastic.overdue).toMatchObject([
    { slot: 0, client: "trial", byteSize: 2 * pageSize, isConnected: true },
  ]);
  expect(trial.describe().workers).toMatchObject([{ overdue: [{ byteOffset: pageSize, byteSize: 2 * pageSize }] }]);
  store.now = now;
  worker.follow();
  worker.letGo();
  await operation.ended;
  await until("nobody has it", () => store.elastic.overdue.length === 0);
});
