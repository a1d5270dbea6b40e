/** Operations over HTTP: how a copy is begun, followed, listed, cancelled and told of, and who sees it. */

import { describe, expect, test } from "bun:test";
import { limits, MiB } from "../../src/memory/limits.ts";
import { readStats } from "../../src/memory/state/stats.ts";
import { type TestApp, until, withApp } from "../harness/app.ts";
import type { EventFrame } from "../harness/event-frame.ts";
import { tokenOf } from "../harness/tokens-file.ts";
import { lease } from "./support/lease.ts";
import { beginCopy, copyRegion, createSealed, endOf, type Operation } from "./support/operations.ts";
import { endSession, openSession } from "./support/sessions.ts";
import { noMountBecause, SmallTmpfs, smallTmpfsBytes } from "./support/small-tmpfs.ts";

/** Several chunks, so that there is something between the first and the last. */
const largeBytes = 3 * limits.checksumChunkBytes;

async function eventsOf(app: TestApp, { id }: Operation): Promise<readonly EventFrame[]> {
  const { items } = await app.ok<{ items: EventFrame[] }>(200, "GET", "/v1/events?types=tensord.operation.&limit=1000");
  return items.filter(({ subject }) => subject === id);
}

describe("a copy by request", () => {
  test(
    "is begun with 202 and a Location, goes on by itself, and leads to a sealed region",
    withApp(async (app) => {
      const source = await createSealed(app);
      const answer = await app.request("POST", `/v1/regions/${source}/copy`, { name: "copy", ttl_ms: 60_000 });
      const begun = answer.body as Operation;
      expect(answer.status).toBe(202);
      expect(answer.headers.get("location")).toBe(`/v1/operations/${begun.id}`);
      expect(begun).toMatchObject({
        kind: "copy",
        state: "running",
        source,
        region: null,
        problem: null,
        ended_at: null,
      });
      const ended = await endOf(app, begun);
      expect(ended).toMatchObject({ state: "succeeded", problem: null, done_bytes: ended.total_bytes });
      const found = await app.ok(200, "GET", "/v1/models/default/regions/copy");
      expect(found).toMatchObject({ id: ended.region, state: "sealed", checksum: { value: expect.any(String) } });
    }),
  );

  test(
    "that is waited for is answered with 200 once it has ended, and with 202 if the wait is too short",
    withApp(async (app) => {
      expect(await copyRegion(app)).toMatchObject({ state: "succeeded" });
      const source = await createSealed(app, { byte_size: largeBytes });
      const gate = holdFills(app);
      const headers = { prefer: "wait=1" };
      const answer = await app.request("POST", `/v1/regions/${source}/copy`, { ttl_ms: 60_000 }, { headers });
      expect(answer).toMatchObject({ status: 202, body: { state: "running" } });
      expect(answer.headers.get("preference-applied")).toBe("wait=1");
      gate.open();
      expect(await endOf(app, answer.body as Operation)).toMatchObject({ state: "succeeded" });
    }),
  );

  test(
    "that is asked for again under its key is the same, also after its source is gone",
    withApp(async (app) => {
      const source = await createSealed(app);
      const gate = holdFills(app);
      const first = await beginCopy(app, source, { key: "load" });
      const { storage } = await app.get(source);
      using _ = lease(storage.path);
      await app.remove(source);
      expect(await beginCopy(app, source, { key: "load" })).toMatchObject({ id: first.id, key: "load" });
      gate.open();
      expect(await endOf(app, first)).toMatchObject({ state: "succeeded" });
    }),
  );

  test(
    "says as a Problem what it could not do, and leaves nothing",
    withApp(async (app) => {
      await app.create({ name: "taken" });
      const source = await createSealed(app);
      const before = app.footprint();
      const failed = await copyRegion(app, { name: "taken" }, source);
      expect(failed).toMatchObject({
        state: "failed",
        region: null,
        problem: { code: "name-taken", status: 409, hint: expect.any(String) },
      });
      expect(app.footprint()).toEqual(before);
    }),
  );

  test(
    "for which there is no room says so without whose sessions use it",
    withApp(
      async (app) => {
        const session = await openSession(app);
        const source = await createSealed(app, { byte_size: 40 * MiB, session: session.id, ttl_ms: undefined });
        const { problem } = await copyRegion(app, {}, source);
        expect(problem).toMatchObject({ code: "pool-full", requested_bytes: expect.any(Number) });
        expect(problem).not.toHaveProperty("holders");
      },
      { memoryLimitBytes: 64 * MiB },
    ),
  );

  test(
    "into a session that ends meanwhile is over with it, and leaves nothing",
    withApp(async (app) => {
      const source = await createSealed(app, { byte_size: largeBytes });
      const before = app.footprint();
      const session = await openSession(app);
      const gate = holdFills(app);
      const begun = await beginCopy(app, source, { session: session.id, ttl_ms: undefined });
      await gate.reached;
      const ending = endSession(app, session);
      gate.open();
      await ending;
      expect(await endOf(app, begun)).toMatchObject({ state: "failed", problem: { code: "cancelled" } });
      expect(app.footprint()).toEqual(before);
    }),
  );
});

describe("an operation that is cancelled", () => {
  test(
    "is over when the answer comes, and nothing of it is left; its source is let go of",
    withApp(async (app) => {
      const source = await createSealed(app, { byte_size: largeBytes });
      const before = app.footprint();
      const gate = holdFills(app);
      const begun = await beginCopy(app, source);
      await gate.reached;
      const cancelling = app.ok<Operation>(200, "DELETE", `/v1/operations/${begun.id}`);
      gate.open();
      expect(await cancelling).toMatchObject({ state: "cancelled", region: null, problem: { code: "cancelled" } });
      expect(app.footprint()).toEqual(before);
      expect((await app.get(source)).in_use).toBe(false);
    }),
  );

  test(
    "after it has ended stays as it ended",
    withApp(async (app) => {
      const { id, region } = await copyRegion(app);
      expect(await app.ok<Operation>(200, "DELETE", `/v1/operations/${id}`)).toMatchObject({
        state: "succeeded",
        region,
      });
      expect((await app.get(region as string)).state).toBe("sealed");
    }),
  );
});

describe("operations are told of", () => {
  test(
    "by events: the first that it has begun, the last that it has ended",
    withApp(async (app) => {
      const ended = await copyRegion(app);
      const events = await eventsOf(app, ended);
      expect(events.map(({ type }) => type)).toEqual(["tensord.operation.progress", "tensord.operation.finished"]);
      expect(events[0]?.data).toMatchObject({ state: "running", done_bytes: 0 });
      expect(events[1]?.data).toEqual({ ...ended });
    }),
  );

  test(
    "in a list by pages, in the order of their start, by model and by state",
    withApp(async (app) => {
      await app.register("llama");
      const source = await createSealed(app, { name: "weights" });
      const made = [
        await copyRegion(app, {}, source),
        await copyRegion(app, { name: "weights" }, source),
        await copyRegion(app, { model: "llama" }, source),
      ].map(({ id }) => id);
      const list = async (query: string) =>
        await app.ok<{ items: Operation[]; next_cursor: string | null }>(200, "GET", `/v1/operations${query}`);
      const ids = async (query: string) => (await list(query)).items.map(({ id }) => id);
      expect(await ids("")).toEqual(made);
      expect(await ids("?state=failed")).toEqual([made[1] as string]);
      expect(await ids("?model=llama")).toEqual([made[2] as string]);
      const { items, next_cursor: cursor } = await list("?limit=2");
      expect(items).toHaveLength(2);
      expect(await ids(`?limit=2&cursor=${cursor}`)).toEqual([made[2] as string]);
    }),
  );

  test(
    "to who may use their model, and are cancelled by who began them",
    withApp(
      async (app) => {
        app.token = tokenOf("ops");
        const { id } = await copyRegion(app);
        app.token = tokenOf("held");
        await app.refused("operation-not-found", "GET", `/v1/operations/${id}`);
        await app.refused("operation-not-found", "DELETE", `/v1/operations/${id}`);
        expect(await app.ok(200, "GET", "/v1/operations")).toEqual({ items: [], next_cursor: null });
        const { items } = await app.ok<{ items: EventFrame[] }>(200, "GET", "/v1/events?types=tensord.operation.");
        expect(items).toEqual([]);
        app.token = tokenOf("trainer");
        expect(await app.ok(200, "GET", `/v1/operations/${id}`)).toMatchObject({ created_by: "ops" });
        await app.refused("forbidden", "DELETE", `/v1/operations/${id}`);
        app.token = tokenOf("ops");
      },
      {
        tokens: [
          { name: "ops", role: "admin", token: tokenOf("ops") },
          { name: "trainer", role: "worker", token: tokenOf("trainer") },
          { name: "held", role: "worker", token: tokenOf("held"), models: ["llama"] },
        ],
      },
    ),
  );

  test(
    "for a while after their end, and by metrics for ever",
    withApp(async (app) => {
      const { id } = await copyRegion(app);
      const { now } = app.store;
      app.store.now = () => now() + limits.operationKeptMs + 1;
      await app.refused("operation-not-found", "GET", `/v1/operations/${id}`);
      app.store.now = now;
      const text = await app.ok<string>(200, "GET", "/metrics");
      expect(text).toContain('tensord_operations_total{state="succeeded"} 1');
      expect(text).toContain("tensord_operations_running 0");
    }),
  );
});

test(
  "a server that stops ends what runs, and leaves nothing of it",
  withApp(async (app) => {
    const source = await createSealed(app, { byte_size: largeBytes });
    const { regions } = readStats(app.store);
    const gate = holdFills(app);
    const begun = await beginCopy(app, source);
    await gate.reached;
    app.store.stop();
    gate.open();
    await until("the copy is over", () => app.store.operations.running === 0);
    const ended = app.store.operations.after(0, app.store.now()).find(({ token }) => begun.id === `op_${token}`);
    expect(ended).toMatchObject({ state: "failed", failure: { code: "shutting-down" } });
    expect(readStats(app.store).regions).toEqual(regions);
  }),
);

test.skipIf(noMountBecause !== undefined)(
  `a copy into a file system without room fails, and leaves nothing (${noMountBecause ?? "a small tmpfs"})`,
  async () => {
    using tmpfs = new SmallTmpfs();
    const use = withApp(
      async (app) => {
        const source = await createSealed(app, { byte_size: 64 * 1024 });
        const before = app.footprint();
        tmpfs.fill();
        try {
          const failed = await copyRegion(app, {}, source);
          expect(failed).toMatchObject({ state: "failed", problem: { code: "out-of-shared-memory" } });
          expect(app.footprint()).toEqual(before);
        } finally {
          tmpfs.drain();
        }
        expect(await copyRegion(app, {}, source)).toMatchObject({ state: "succeeded" });
      },
      { shmDirectory: tmpfs.path, memoryLimitBytes: smallTmpfsBytes },
    );
    await use();
  },
);

/** Holds every copy up after its first chunk, until it is opened. */
function holdFills({ store }: TestApp) {
  const reached = Promise.withResolvers<void>();
  const opened = Promise.withResolvers<void>();
  for (const { bytes } of store.storages.all) {
    const fill = bytes.fill.bind(bytes);
    bytes.fill = async (...args) => {
      reached.resolve();
      await opened.promise;
      return await fill(...args);
    };
  }
  return { reached: reached.promise, open: () => opened.resolve() };
}
