/** Models: registered with a limit, which counts at once when it changes, and unregistered with what they hold. */

import { describe, expect, test } from "bun:test";
import { statSync } from "node:fs";
import { MiB } from "../../src/memory/limits.ts";
import { hostOf } from "../../src/server/cli/pools.ts";
import type { Deletion, Model, ModelList, Region } from "../harness/answers.ts";
import { type TestApp, toCharge, until, withApp } from "../harness/app.ts";
import { lease } from "./support/lease.ts";
import { idInState, slowBytes } from "./support/region-failures.ts";

function getModel(app: TestApp, name: string): Promise<Model> {
  return app.ok(200, "GET", `/v1/models/${name}`);
}

function setLimit(app: TestApp, name: string, memoryLimitBytes: number | null): Promise<Model> {
  return app.ok(200, "PATCH", `/v1/models/${name}`, { memory_limit_bytes: memoryLimitBytes });
}

function unregister(app: TestApp, name: string): Promise<Deletion> {
  return app.ok(200, "DELETE", `/v1/models/${name}?drain=true`);
}

describe("a model", () => {
  test(
    "is found where the answer's Location points, empty and with its limit",
    withApp(async (app) => {
      const { headers, body, status } = await app.request("POST", "/v1/models", {
        name: "llama",
        memory_limit_bytes: MiB,
      });
      expect(status).toBe(201);
      const found = await app.request("GET", headers.get("location") ?? "");
      expect(headers.get("etag")).toMatch(/^"[a-z0-9]+\.1"$/);
      expect(found.headers.get("etag")).toBe(headers.get("etag"));
      expect(found.body).toEqual(body);
      expect(body).toMatchObject({
        pools: [{ pool: "host", limit_bytes: MiB, used_bytes: 0, draining_bytes: 0 }],
        regions: 0,
        revision: 1,
      });
    }),
  );

  test(
    "has no limit if none is given, and none is what null says",
    withApp(async (app) => {
      expect(await app.register("free")).toMatchObject({ pools: [{ limit_bytes: null }] });
      const body = { name: "null", memory_limit_bytes: null };
      expect(await app.ok<Model>(201, "POST", "/v1/models", body)).toMatchObject({ pools: [{ limit_bytes: null }] });
    }),
  );

  test(
    "called default is always there, and stays",
    withApp(async (app) => {
      expect(await getModel(app, "default")).toMatchObject({ pools: [{ limit_bytes: null }] });
      await app.create();
      for (const query of ["", "?drain=true", "?drain=false"]) {
        const problem = await app.refused("model-in-use", "DELETE", `/v1/models/default${query}`);
        expect(problem.detail).toContain("always exists");
      }
      expect(await setLimit(app, "default", MiB)).toMatchObject({ pools: [{ limit_bytes: MiB }] });
    }),
  );

  test(
    "may have any name that is allowed, also one that JavaScript knows",
    withApp(async (app) => {
      for (const name of ["__proto__", "constructor", "toString", "n".repeat(128), "org--name", "A.b_c-1"]) {
        await app.register(name);
        expect((await getModel(app, name)).name).toBe(name);
        const { id } = await app.create({ model: name, name });
        expect(await app.ok<Region>(200, "GET", `/v1/models/${name}/regions/${name}`)).toMatchObject({
          id,
          model: name,
        });
      }
    }),
  );

  test(
    "counts what its regions occupy, in use and draining apart",
    withApp(async (app) => {
      await app.register("llama");
      const first = await app.create({ model: "llama", byte_size: 10_000 });
      const second = await app.create({ model: "llama", byte_size: 1 });
      const [a, b] = [first, second].map(({ storage }) => toCharge(storage.byte_size)) as [number, number];
      expect(await getModel(app, "llama")).toMatchObject({
        pools: [{ used_bytes: a + b, draining_bytes: 0 }],
        regions: 2,
      });
      {
        using _ = lease(first.storage.path);
        await app.remove(first.id);
        expect(await getModel(app, "llama")).toMatchObject({
          pools: [{ used_bytes: b, draining_bytes: a }],
          regions: 2,
        });
      }
      const drained = () => getModel(app, "llama").then((model) => hostOf(model).draining_bytes === 0);
      await until("the first region is freed", drained);
      expect(await getModel(app, "llama")).toMatchObject({ pools: [{ used_bytes: b, draining_bytes: 0 }], regions: 1 });
    }),
  );
});

describe("a changed limit", () => {
  test(
    "counts at once",
    withApp(async (app) => {
      await app.register("llama", 8192);
      const body = { model: "llama", byte_size: 8192, ttl_ms: 60_000 };
      await app.refused("model-limit-exceeded", "POST", "/v1/regions", body);
      await setLimit(app, "llama", 12_288);
      await app.create(body);
      await setLimit(app, "llama", null);
      await app.create(body);
    }),
  );

  test(
    "below what is used takes nothing away and lets nothing in",
    withApp(async (app) => {
      await app.register("llama");
      const { id, storage } = await app.create({ model: "llama", byte_size: 100_000 });
      expect(await setLimit(app, "llama", 0)).toMatchObject({
        pools: [{ limit_bytes: 0, used_bytes: toCharge(104_096) }],
      });
      expect(statSync(storage.path).size).toBe(storage.byte_size);
      const refused = { model: "llama", byte_size: 0, ttl_ms: 1000 };
      const problem = await app.refused("model-limit-exceeded", "POST", "/v1/regions", refused);
      expect(problem).toMatchObject({ available_bytes: 0, requested_bytes: 4096 });
      await app.seal(id);
      await app.remove(id);
    }),
  );

  test(
    "goes by the revision that the client knows",
    withApp(async (app) => {
      await app.register("llama", 1);
      const change = (ifMatch: string) =>
        app.request("PATCH", "/v1/models/llama", { memory_limit_bytes: 2 }, { headers: { "if-match": ifMatch } });
      const { status, headers } = await change('"1"');
      expect(status).toBe(200);
      expect(headers.get("etag")).toMatch(/\.2"$/);
      expect((await change('"1"')).body).toMatchObject({ code: "revision-mismatch" });
      expect((await change("garbage")).body).toMatchObject({ code: "validation-failed" });
      expect(await getModel(app, "llama")).toMatchObject({ revision: 2, pools: [{ limit_bytes: 2 }] });
    }),
  );
});

describe("unregistering a model", () => {
  test(
    "that is empty makes its name free",
    withApp(async (app) => {
      await app.register("llama", MiB);
      expect(await app.ok<Deletion>(200, "DELETE", "/v1/models/llama")).toEqual({ state: "deleted", freed_bytes: 0 });
      await app.refused("model-not-found", "GET", "/v1/models/llama");
      expect(await app.register("llama")).toMatchObject({ pools: [{ limit_bytes: null }], revision: 1 });
    }),
  );

  test(
    "that has regions is refused, with how many they are",
    withApp(async (app) => {
      await app.register("llama");
      for (const name of ["a", "b", "c"]) await app.create({ model: "llama", name });
      for (const query of ["", "?drain=false"]) {
        const problem = await app.refused("model-in-use", "DELETE", `/v1/models/llama${query}`);
        expect(problem).toMatchObject({ regions: 3 });
      }
    }),
  );

  test(
    "with drain takes its regions with it, whatever their state, and no other",
    withApp(async (app) => {
      const before = app.footprint();
      await app.register("llama");
      const open = await app.create({ model: "llama", name: "open" });
      const sealed = await app.create({ model: "llama" });
      await app.seal(sealed.id);
      const freed = [open, sealed].reduce((sum, { storage }) => sum + toCharge(storage.byte_size), 0);
      const other = await app.create();
      expect(await unregister(app, "llama")).toEqual({ state: "deleted", freed_bytes: freed });
      await app.refused("model-not-found", "GET", "/v1/models/llama/regions/open");
      await app.refused("model-not-found", "POST", "/v1/regions", { model: "llama", byte_size: 1, ttl_ms: 1000 });
      await app.remove(other.id);
      expect(app.footprint()).toEqual(before);
    }),
  );

  test(
    "with drain cancels a region in creation, and lets no other begin",
    withApp(async (app) => {
      await app.register("llama");
      const creation = app.request("POST", "/v1/regions", { model: "llama", byte_size: slowBytes, ttl_ms: 1000 });
      await idInState(app, "creating");
      const unregistering = unregister(app, "llama");
      // The DELETE is at work by now, and waits for the creation to undo itself.
      for (let turn = 0; turn < 3; turn++) await app.request("GET", "/livez");
      const late = await app.request("POST", "/v1/regions", { model: "llama", byte_size: 1, ttl_ms: 1000 });
      expect(late.body).toMatchObject({ code: "model-not-found" });
      expect((await creation).body).toMatchObject({ code: "cancelled" });
      expect(await unregistering).toEqual({ state: "deleted", freed_bytes: toCharge(slowBytes + 4096) });
      expect(hostOf(await app.stats()).used_bytes).toBe(0);
    }),
  );

  test(
    "with drain leaves a leased region draining; it goes with its last lease",
    withApp(async (app) => {
      await app.register("llama");
      const { id, storage } = await app.create({ model: "llama" });
      {
        using _ = lease(storage.path);
        expect(await unregister(app, "llama")).toEqual({ state: "draining", freed_bytes: 0 });
        expect(await app.get(id)).toMatchObject({ state: "draining", model: "llama" });
        await app.register("llama");
        expect(await getModel(app, "llama")).toMatchObject({ regions: 0, pools: [{ draining_bytes: 0 }] });
      }
      await until("the region is freed", async () => (await app.request("GET", `/v1/regions/${id}`)).status === 404);
      expect(hostOf(await app.stats())).toMatchObject({ used_bytes: 0, draining_bytes: 0 });
      expect(await getModel(app, "llama")).toMatchObject({ regions: 0, pools: [{ used_bytes: 0, draining_bytes: 0 }] });
    }),
  );
});

describe("the list of models", () => {
  test(
    "is by name, page by page, also when models come and go between two pages",
    withApp(async (app) => {
      const names = Array.from({ length: 25 }, (_, index) => `m${String(index).padStart(2, "0")}`);
      for (const name of names.toReversed()) await app.register(name);
      const seen: string[] = [];
      for (let cursor: string | null = ""; cursor !== null; ) {
        const query: string = cursor === "" ? "" : `&cursor=${cursor}`;
        const page: ModelList = await app.ok(200, "GET", `/v1/models?limit=10${query}`);
        expect(page.items.length).toBeLessThanOrEqual(10);
        seen.push(...page.items.map(({ name }) => name));
        cursor = page.next_cursor;
        // The one at the cursor goes, and one before it comes: neither moves the next page.
        if (cursor === "m08") {
          await unregister(app, "m08");
          await app.register("a-late-one");
        }
      }
      expect(seen).toEqual(["default", ...names]);
    }),
  );

  test(
    "has a next page only if there is one",
    withApp(async (app) => {
      await app.register("llama");
      expect(await app.ok<ModelList>(200, "GET", "/v1/models?limit=2")).toMatchObject({ next_cursor: null });
      expect(await app.ok<ModelList>(200, "GET", "/v1/models?limit=1")).toMatchObject({ next_cursor: "default" });
      for (const limit of ["0", "-1", "1001", "1.5", "ten", "", "1e2", "+1", "01"]) {
        await app.refused("validation-failed", "GET", `/v1/models?limit=${encodeURIComponent(limit)}`);
      }
    }),
  );
});
