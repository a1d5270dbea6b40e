/** GET by name, and the wait that it can be asked for: until the name is there and sealed, or the time is over. */

import { afterAll, describe, expect, test } from "bun:test";
import { limits } from "../../src/memory/limits.ts";
import type { Answer, RegionDetail } from "../harness/answers.ts";
import { type TestApp, withApp } from "../harness/app.ts";
import { LentApps } from "../harness/lent-app.ts";

const apps = new LentApps();
afterAll(() => apps.end());

function find(app: TestApp, name: string, prefer?: string, signal?: AbortSignal): Promise<Answer> {
  const headers: Record<string, string> = prefer === undefined ? {} : { prefer };
  return app.request("GET", `/v1/models/default/regions/${name}`, undefined, {
    headers,
    ...(signal === undefined ? {} : { signal }),
  });
}

/** Whether a promise has settled, asked after every request before has had its turn. */
async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setTimeout(resolve));
  const pending = Symbol("pending");
  return (await Promise.race([promise, Promise.resolve(pending)])) !== pending;
}

/** How many more requests may wait, which tells how many do. */
async function freePlaces(app: TestApp): Promise<number> {
  const stop = new AbortController();
  const probes = Array.from({ length: limits.waiters }, () =>
    app.store.waiters.wait("default", "probe", 60_000, stop.signal).catch((error) => error),
  );
  stop.abort();
  const reasons = await Promise.all(probes);
  return reasons.filter((reason) => reason === stop.signal.reason).length;
}

describe("a region by name", () => {
  test(
    "is answered at once without a wait, whatever its state",
    apps.with(async (app) => {
      const { id } = await app.create({ name: "weights" });
      const open = await find(app, "weights");
      expect(open.body).toMatchObject({ id, state: "open" });
      expect(open.headers.get("preference-applied")).toBeNull();
      await app.seal(id);
      const sealed = await find(app, "weights", "wait=60");
      expect(sealed.body).toMatchObject({ id, state: "sealed" });
      expect(sealed.headers.get("preference-applied")).toBe("wait=60");
    }),
  );

  test(
    "is not there once its region is deleted",
    apps.with(async (app) => {
      const { id } = await app.create({ name: "weights" });
      await app.remove(id);
      await app.refused("region-not-found", "GET", "/v1/models/default/regions/weights");
    }),
  );

  for (const prefer of [
    "wait=0",
    "wait=-1",
    "wait=soon",
    "wait=",
    "wait",
    "respond-async",
    "waiting=5",
    "return=minimal",
    "",
  ]) {
    test(
      `is not waited for by ${JSON.stringify(prefer)}`,
      apps.with(async (app) => {
        expect((await find(app, "weights", prefer)).body).toMatchObject({ code: "region-not-found" });
      }),
    );
  }
});

describe("a wait for a name", () => {
  test(
    "ends with the sealed region, not with the open one before",
    apps.with(async (app) => {
      const waiting = find(app, "weights", "wait=60");
      const { id } = await app.create({ name: "weights" });
      expect(await isSettled(waiting)).toBeFalse();
      await app.seal(id);
      const { status, body, headers } = await waiting;
      expect(status).toBe(200);
      expect(body).toMatchObject({ id, state: "sealed", name: "weights" });
      expect(headers.get("etag")).toBe(`"${id}.2"`);
    }),
  );

  test(
    "ends for all who wait, and for nobody who waits for another name",
    withApp(async (app) => {
      const waiting = Array.from({ length: 200 }, () => find(app, "weights", "wait=60"));
      const others = ["Weights", "weight", "weights2"].map((name) => find(app, name, "wait=60"));
      const { id } = await app.create({ name: "weights" });
      await app.seal(id);
      const answers = await Promise.all(waiting);
      expect(answers.every(({ body }) => (body as RegionDetail).state === "sealed")).toBeTrue();
      for (const other of others) expect(await isSettled(other)).toBeFalse();
      app.store.stop();
      for (const other of others) expect((await other).body).toMatchObject({ code: "shutting-down" });
    }),
  );

  test(
    "outlives a region that is deleted before its seal",
    apps.with(async (app) => {
      const waiting = find(app, "weights", "wait=60");
      await app.remove((await app.create({ name: "weights" })).id);
      const { id } = await app.create({ name: "weights" });
      await app.seal(id);
      expect((await waiting).body).toMatchObject({ id, state: "sealed" });
    }),
  );

  test(
    "ends when a replacement takes the name over",
    apps.with(async (app) => {
      const old = await app.create({ name: "weights" });
      const waiting = find(app, "weights", "wait=60");
      const next = await app.create({ name: "weights", if_exists: "replace" });
      expect(await isSettled(waiting)).toBeFalse();
      await app.seal(next.id);
      expect((await waiting).body).toMatchObject({ id: next.id });
      expect(next.id).not.toBe(old.id);
    }),
  );

  test(
    "does not end for a name in another model",
    apps.with(async (app) => {
      await app.register("llama");
      const waiting = find(app, "weights", "wait=60");
      await app.seal((await app.create({ name: "weights", model: "llama" })).id);
      expect(await isSettled(waiting)).toBeFalse();
      const { id } = await app.create({ name: "weights" });
      await app.seal(id);
      expect((await waiting).body).toMatchObject({ id });
    }),
  );

  test(
    "may begin before the model is registered",
    apps.with(async (app) => {
      const headers = { prefer: "wait=60" };
      const waiting = app.request("GET", "/v1/models/llama/regions/weights", undefined, { headers });
      await app.register("llama");
      const { id } = await app.create({ model: "llama", name: "weights" });
      await app.seal(id);
      expect((await waiting).body).toMatchObject({ id, model: "llama" });
    }),
  );

  test(
    "that ends too early answers with what is there",
    apps.with(async (app) => {
      const { id } = await app.create({ name: "open" });
      const headers = { prefer: "wait=1" };
      const [open, nothing, nobody] = await Promise.all([
        find(app, "open", "wait=1"),
        find(app, "nothing", "wait=1"),
        app.request("GET", "/v1/models/nobody/regions/weights", undefined, { headers }),
      ]);
      expect(open).toMatchObject({ status: 200, body: { id, state: "open" } });
      expect(nothing).toMatchObject({ status: 404, body: { code: "region-not-found" } });
      expect((nothing.body as { detail: string }).detail).toContain("1000 ms");
      expect(nobody).toMatchObject({ status: 404, body: { code: "model-not-found" } });
    }),
  );

  test(
    "is cut to the longest that may be asked for",
    withApp(async (app) => {
      const waiting = find(app, "weights", "wait=999999999");
      const { id } = await app.create({ name: "weights" });
      await app.seal(id);
      expect((await waiting).headers.get("preference-applied")).toBe(`wait=${limits.waitSeconds}`);
    }),
  );

  test(
    "ends when the server stops, with a word when to come back",
    withApp(async (app) => {
      const waiting = find(app, "weights", "wait=60");
      expect(await isSettled(waiting)).toBeFalse();
      app.store.stop();
      const { body, headers } = await waiting;
      expect(body).toMatchObject({ code: "shutting-down", status: 503 });
      expect(headers.get("retry-after")).toBe("1");
    }),
  );

  test(
    "takes a place until it ends, or its client goes away, which is nobody's mistake",
    withApp(async (app) => {
      expect(await freePlaces(app)).toBe(limits.waiters);
      const client = new AbortController();
      const gone = Array.from({ length: 5 }, () =>
        find(app, "weights", "wait=60", client.signal).catch(() => undefined),
      );
      const stays = find(app, "weights", "wait=60");
      expect(await isSettled(stays)).toBeFalse();
      expect(await freePlaces(app)).toBe(limits.waiters - 6);
      client.abort();
      await Promise.all(gone);
      expect(await freePlaces(app)).toBe(limits.waiters - 1);
      await app.seal((await app.create({ name: "weights" })).id);
      await stays;
      expect(await freePlaces(app)).toBe(limits.waiters);
      expect(app.mistakes).toEqual([]);
    }),
  );
});
