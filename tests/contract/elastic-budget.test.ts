/** One budget for regions and the pages of every elastic pool: what is charged, what goes for whom, and in which order they wait. */

import { expect, test } from "bun:test";
import { MiB } from "../../src/memory/limits.ts";
import { changeModel, registerModel, unregisterModel } from "../../src/memory/sessions/models.ts";
import { endSession, openSession } from "../../src/memory/sessions/sessions.ts";
import { until } from "../harness/app.ts";
import { trialDevice } from "../harness/trial-card.ts";
import { pageSize, refusalOf, TrialPool } from "../harness/trial-pool.ts";

const device = trialDevice.uuid;
/** The device has 32 pages. */
const ofDevice = trialDevice.totalBytes / pageSize;
const wide = { virtualCapacity: 64 * pageSize };

/** As if nothing had been used for a while. */
function age(trial: TrialPool): void {
  for (const each of trial.app.store.books.evictables) Object.assign(each, { lastUsedAt: 0 });
}

test("pages are charged to the model's pool of the device and to the device's, one by one", async () => {
  await using trial = await TrialPool.open(wide);
  const { store } = trial.app;
  const model = store.books.model("default");
  await trial.map(5);
  expect([model.pools.get(device).usedBytes, store.books.pools.get(device).usedBytes]).toEqual([
    5 * pageSize,
    5 * pageSize,
  ]);
  changeModel(store, model, new Map([[device, 6 * pageSize]]));
  expect(await refusalOf(() => trial.map(2))).toBe("model-limit-exceeded");
  changeModel(store, model, new Map([[device, null]]));
  expect(await refusalOf(() => trial.map(ofDevice))).toBe("pool-full");
  await trial.unmap(1, 2).ended;
  expect(model.pools.get(device).usedBytes).toBe(3 * pageSize);
  const other = registerModel(store, "other", new Map());
  const pool = await trial.make({ model: "other" });
  expect(await refusalOf(() => unregisterModel(store, other, true))).toBe("model-in-use");
  await store.elastic.remove(pool, undefined);
  await unregisterModel(store, other, true);
});

test("a minimum is charged from the beginning, and is nobody else's", async () => {
  await using trial = await TrialPool.open({ ...wide, minimumBytes: 4 * pageSize });
  expect(trial.charged).toBe(4);
  await trial.map(3);
  expect(trial.charged).toBe(4);
  await trial.map(3);
  expect(trial.charged).toBe(6);
  trial.app.store.elastic.change(trial.pool, { minimumBytes: 8 * pageSize });
  expect([trial.charged, trial.pool.revision]).toEqual([8, 2]);
  await trial.unmap(0, 6).ended;
  expect(trial.charged).toBe(8);
  const tooMuch = { minimumBytes: (ofDevice + 1) * pageSize };
  expect(await refusalOf(() => trial.app.store.elastic.change(trial.pool, tooMuch))).toBe("pool-full");
  trial.app.store.elastic.change(trial.pool, { minimumBytes: 0 });
  expect(trial.charged).toBe(0);
  expect(await refusalOf(() => trial.app.store.elastic.change(trial.pool, { minimumBytes: 65 * pageSize }))).toBe(
    "out-of-range",
  );
});

test("a maximum is the pool's own limit, which a change moves, and which names its numbers", async () => {
  await using trial = await TrialPool.open({ ...wide, maximumBytes: 4 * pageSize });
  await trial.map(3);
  const refused = trial.map(2).catch((error) => error);
  expect(await refused).toMatchObject({
    code: "pool-full",
    facts: { requested_bytes: 2 * pageSize, available_bytes: pageSize, maximum_bytes: 4 * pageSize },
  });
  const waiting = trial.map(2, { onFull: "wait" });
  await until("it waits", () => trial.app.store.room.size === 1);
  // Somebody who has room under his own maximum is not held up by one who has none.
  await trial.map(1, { onFull: "wait" });
  trial.app.store.elastic.change(trial.pool, { maximumBytes: 6 * pageSize });
  expect(await waiting).toMatchObject({ byteSize: 2 * pageSize });
  expect(await refusalOf(() => trial.map(7, { onFull: "wait" }))).toBe("pool-full");
});

test("evictable pages and regions go in one line, least recently used first, and no more than is needed", async () => {
  await using trial = await TrialPool.open(wide);
  const { app } = trial;
  await trial.map(10, { evictable: true });
  const region = await app.create({ storage: "cuda_vmm", byte_size: 10 * pageSize, evictable: true });
  await app.seal(region.id);
  await trial.map(10, { evictable: true });
  age(trial);
  await trial.map(4, { onFull: "evict" });
  expect(trial.runs).toEqual([
    [0, 4, 21],
    [10, 10, 11],
  ]);
  expect(trial.told.map(({ type, data }) => [type, data.reason])).toContainEqual(["tensord.vmm.unmapped", "evicted"]);
  await trial.map(16, { onFull: "evict" });
  expect((await app.request("GET", `/v1/regions/${region.id}`)).status).toBe(404);
  expect(trial.runs.length).toBe(3);
  const other = await app.create({ storage: "cuda_vmm", byte_size: 12 * pageSize, on_full: "evict" });
  expect(trial.runs).toEqual([
    [0, 4, 21],
    [20, 16, 25],
  ]);
  await app.remove(other.id);
});

test("pages that a worker has are evicted when it lets go, and whoever asked waits for that", async () => {
  await using trial = await TrialPool.open(wide);
  await trial.map(ofDevice, { evictable: true });
  const worker = trial.attach();
  await worker.take();
  age(trial);
  expect(await refusalOf(() => trial.map(1, { onFull: "evict", deadlineMs: 1 }))).toBe("pool-full");
  expect(trial.describe().leaving).toHaveLength(1);
  const waiting = trial.map(1, { onFull: "evict" });
  worker.follow();
  worker.letGo();
  expect(await waiting).toMatchObject({ byteSize: pageSize });
});

test("what was used a moment ago is not evicted", async () => {
  await using trial = await TrialPool.open(wide);
  // On a busy machine a moment is long.
  const now = Date.now();
  trial.app.store.now = () => now;
  await trial.map(ofDevice, { evictable: true });
  expect(await refusalOf(() => trial.map(1, { onFull: "evict" }))).toBe("pool-full");
  const worker = trial.attach();
  age(trial);
  await worker.take();
  expect(await refusalOf(() => trial.map(1, { onFull: "evict" }))).toBe("pool-full");
});

test("pages wait for memory in the line of regions, and are told of pressure", async () => {
  await using trial = await TrialPool.open(wide);
  const { app } = trial;
  await trial.map(ofDevice);
  const pressures = () => app.store.events.history().events.filter(({ type }) => type === "tensord.pool.pressure");
  expect(pressures().length).toBe(1);
  const pages = trial.map(4, { onFull: "wait" });
  await until("the pages wait", () => app.store.room.size === 1);
  const asked = { storage: "cuda_vmm", byte_size: 1, on_full: "wait", deadline_ms: 60_000 };
  const region = app.create(asked);
  await until("both wait", () => app.store.room.size === 2);
  await trial.unmap(0, 2).ended;
  expect(app.store.room.size, "the smaller one is not first").toBe(2);
  await trial.unmap(2, 2).ended;
  await pages;
  expect(app.store.room.size).toBe(1);
  await trial.unmap(4, 1).ended;
  await app.remove((await region).id);
  expect(await refusalOf(() => trial.map(9, { onFull: "wait", deadlineMs: 1 }))).toBe("deadline-exceeded");
  await trial.unmap(10, 10).ended;
  expect(pressures().length).toBe(2);
});

test("who waits for room in a pool that is deleted, or in a server that stops, is told so", async () => {
  await using trial = await TrialPool.open({ ...wide, maximumBytes: pageSize });
  await trial.map(1);
  const { store } = trial.app;
  trial.app.store.elastic.change(trial.pool, { maximumBytes: 2 * pageSize });
  const waiting = refusalOf(() => trial.map(2, { onFull: "wait" }));
  await until("it waits", () => store.room.size === 1);
  await store.elastic.remove(trial.pool, undefined);
  expect(await waiting).toBe("vmm-pool-not-found");
  await trial.make({ maximumBytes: pageSize });
  await trial.map(1);
  trial.app.store.elastic.change(trial.pool, { maximumBytes: 2 * pageSize });
  const late = refusalOf(() => trial.map(2, { onFull: "wait" }));
  await until("it waits", () => store.room.size === 1);
  await trial.restart();
  expect(await late).toBe("shutting-down");
});

test("the pages of a session leave when it ends, others stay", async () => {
  await using trial = await TrialPool.open();
  const { store } = trial.app;
  const facts = { name: null, client: null, quotaBytes: null, ttlMs: 600_000, createdBy: null };
  const session = openSession(store, facts);
  await trial.map(2, { session });
  await trial.map(1);
  const worker = trial.attach();
  await worker.take();
  await endSession(store, session, "request");
  expect(trial.told.at(-1)).toMatchObject({ data: { reason: "session", runs: [{ first_page: 1 }] } });
  expect(trial.runs).toEqual([[2, 1, 3]]);
  worker.follow();
  worker.letGo();
  await until("they are free", () => trial.card.pages.size === 1);
  expect(await refusalOf(() => trial.map(1, { session }))).toBe("session-not-found");
});

test("a pool is made once, found again by the same values, and refuses others and sizes that cannot be", async () => {
  await using trial = await TrialPool.open();
  const first = trial.pool;
  expect(await trial.make()).toBe(first);
  expect(await refusalOf(() => trial.make({ maximumBytes: pageSize }))).toBe("vmm-pool-exists");
  for (const [more, code] of [
    [{ pageSize: MiB }, "invalid-page-size"],
    [{ pageSize: 3 * MiB }, "invalid-page-size"],
    [{ pageSize: 2048 * MiB }, "invalid-page-size"],
    [{ virtualCapacity: pageSize + 1 }, "out-of-range"],
    [{ virtualCapacity: 0 }, "out-of-range"],
    [{ virtualCapacity: 65_537 * pageSize }, "out-of-range"],
    [{ minimumBytes: 2 * pageSize, maximumBytes: pageSize }, "out-of-range"],
    [{ minimumBytes: (ofDevice + 1) * pageSize, ...wide }, "pool-full"],
    [{ deviceUuid: "GPU-1" }, "device-not-found"],
    [{ model: "nobody's" }, "model-not-found"],
  ] as const) {
    await trial.app.store.elastic.remove(first, undefined).catch(() => {});
    expect(await refusalOf(() => trial.make(more)), JSON.stringify(more)).toBe(code);
  }
  const both = await Promise.all([trial.make(), trial.make()]);
  expect(both[0]).toBe(both[1]);
  const { freedBytes } = await trial.map(3).then(() => trial.app.store.elastic.remove(trial.pool, undefined));
  expect(freedBytes).toBe(3 * pageSize);
  expect(trial.told.at(-1)).toMatchObject({ type: "tensord.vmm.unmapped", data: { reason: "deleted" } });
  expect(await refusalOf(() => trial.pool)).toBe("vmm-pool-not-found");
});
