/** What becomes of a name that is taken: `if_exists` fail, attach and replace. */

import { afterAll, describe, expect, test } from "bun:test";
import { lstatSync } from "node:fs";
import { hostOf } from "../../src/server/cli/pools.ts";
import type { Answer, Problem, Region } from "../harness/answers.ts";
import { type TestApp, toCharge, withApp } from "../harness/app.ts";
import { recount } from "../harness/instance-recount.ts";
import { LentApps } from "../harness/lent-app.ts";
import { lease } from "./support/lease.ts";
import { idInState, slowBytes } from "./support/region-failures.ts";

const apps = new LentApps();
afterAll(() => apps.end());

const weights = { name: "weights", tensors: [{ name: "w", dtype: "F32", shape: [4, 4] }], ttl_ms: 60_000 };

function ask(app: TestApp, body: object): Promise<Answer> {
  return app.request("POST", "/v1/regions", body);
}

describe("if_exists fail", () => {
  test(
    "is the default, and names the region that has the name",
    apps.with(async (app) => {
      const { id } = await app.create(weights);
      for (const body of [weights, { ...weights, if_exists: "fail" }]) {
        const problem = await app.refused("name-taken", "POST", "/v1/regions", body);
        expect(problem).toMatchObject({ region: id, detail: expect.stringContaining(`${id} (default/weights)`) });
      }
    }),
  );

  test(
    "asks in one model only",
    apps.with(async (app) => {
      await app.register("llama");
      const first = await app.create(weights);
      const second = await app.create({ ...weights, model: "llama" });
      expect(second.id).not.toBe(first.id);
      expect(await app.ok<Region>(200, "GET", "/v1/models/llama/regions/weights")).toMatchObject({ id: second.id });
    }),
  );

  test(
    "takes the name of a region that drains for free",
    apps.with(async (app) => {
      const first = await app.create(weights);
      using _ = lease(first.storage.path);
      expect((await app.remove(first.id)).state).toBe("draining");
      expect((await app.create(weights)).id).not.toBe(first.id);
    }),
  );
});

describe("if_exists attach", () => {
  const attach = { ...weights, if_exists: "attach" };

  test(
    "makes what is not there, and answers with it after that",
    withApp(async (app) => {
      const made = await ask(app, attach);
      expect(made.status).toBe(201);
      const before = app.footprint();
      const attached = await ask(app, attach);
      expect({ status: attached.status, location: attached.headers.get("location") }).toEqual({
        status: 200,
        location: made.headers.get("location"),
      });
      expect(attached.body).toMatchObject({ id: (made.body as Region).id, state: "open" });
      expect(app.footprint()).toEqual(before);
    }),
  );

  test(
    "answers with a sealed region as well",
    apps.with(async (app) => {
      const { id } = await app.create(weights);
      await app.seal(id);
      expect(await app.ok<Region>(200, "POST", "/v1/regions", attach)).toMatchObject({ id, state: "sealed" });
    }),
  );

  test(
    "extends a life that is shorter than what is asked for, and never shortens one",
    withApp(async (app) => {
      const first = await app.create(weights);
      const shorter = await app.ok<Region>(200, "POST", "/v1/regions", { ...attach, ttl_ms: 1000 });
      expect(shorter).toMatchObject({ expires_at: first.expires_at, revision: 1, owner: first.owner });
      const longer = await app.ok<Region>(200, "POST", "/v1/regions", { ...attach, ttl_ms: 120_000 });
      expect(longer).toMatchObject({ id: first.id, revision: 2, owner: { kind: "ttl", ttl_ms: 120_000 } });
      expect(Date.parse(longer.expires_at ?? "")).toBeGreaterThanOrEqual(Date.parse(first.created_at) + 120_000);
    }),
  );

  test(
    "leaves one that persists as it is",
    withApp(async (app) => {
      const { ttl_ms: _, ...bare } = weights;
      await app.create({ ...bare, persist: true });
      const attached = await app.ok<Region>(200, "POST", "/v1/regions", attach);
      expect(attached).toMatchObject({ owner: { kind: "persist" }, expires_at: null, revision: 1 });
    }),
  );

  test(
    "does not mind the order of tensors, nor what else is asked for",
    apps.with(async (app) => {
      const tensors = [
        { name: "a", dtype: "U8", shape: [1] },
        { name: "b", dtype: "F32", shape: [2] },
      ];
      const { id } = await app.create({ name: "weights", tensors });
      const asked = { ...attach, tensors: tensors.toReversed(), labels: { other: "label" } };
      expect(await app.ok<Region>(200, "POST", "/v1/regions", asked)).toMatchObject({ id, labels: {} });
    }),
  );

  test(
    "refuses other tensors and says which ones",
    apps.with(async (app) => {
      const tensors = [
        { name: "a", dtype: "U8", shape: [1] },
        { name: "b", dtype: "F32", shape: [2] },
        { name: "c", dtype: "F32", shape: [2] },
      ];
      const { id } = await app.create({ name: "weights", tensors });
      const other = [
        { name: "a", dtype: "U8", shape: [1] },
        { name: "b", dtype: "F32", shape: [3] },
        { name: "d", dtype: "F32", shape: [2] },
      ];
      const problem: Problem & { difference?: unknown } = await app.refused("name-taken", "POST", "/v1/regions", {
        ...attach,
        tensors: other,
      });
      expect(problem).toMatchObject({ region: id });
      expect(problem.difference).toEqual({
        missing: ["d"],
        unexpected: ["c"],
        different: [{ name: "b", asked: { dtype: "F32", shape: [3] }, existing: { dtype: "F32", shape: [2] } }],
      });
    }),
  );

  test(
    "waits for a region in creation: one call makes it, the others get it",
    withApp(async (app) => {
      const slow = { name: "weights", byte_size: slowBytes, ttl_ms: 60_000, if_exists: "attach" };
      const answers = await Promise.all(Array.from({ length: 8 }, () => ask(app, slow)));
      expect(answers.map(({ status }) => status).toSorted()).toEqual([200, 200, 200, 200, 200, 200, 200, 201]);
      expect(new Set(answers.map(({ body }) => (body as Region).id)).size).toBe(1);
      expect(answers.every(({ body }) => (body as Region).state === "open")).toBeTrue();
      expect(hostOf(await app.stats()).used_bytes).toBe(toCharge(slowBytes + 4096));
    }),
  );

  test(
    "makes the region itself if the one in creation is deleted",
    apps.with(async (app) => {
      const slow = { name: "weights", byte_size: slowBytes, ttl_ms: 60_000, if_exists: "attach" };
      const first = ask(app, slow);
      const firstId = await idInState(app, "creating");
      const second = ask(app, slow);
      await app.remove(firstId);
      expect((await first).body).toMatchObject({ code: "cancelled" });
      const made = await second;
      expect(made.status).toBe(201);
      expect((made.body as Region).id).not.toBe(firstId);
    }),
  );

  test(
    "makes a new one beside a region that drains",
    apps.with(async (app) => {
      const first = await app.create(weights);
      using _ = lease(first.storage.path);
      await app.remove(first.id);
      const { status, body } = await ask(app, attach);
      expect(status).toBe(201);
      expect((body as Region).id).not.toBe(first.id);
    }),
  );
});

describe("if_exists replace", () => {
  const replace = { ...weights, if_exists: "replace" };

  test(
    "holds a free name at once",
    apps.with(async (app) => {
      expect(await app.create(replace)).toMatchObject({ name: "weights", pending_name: null });
    }),
  );

  test(
    "takes a name over at the seal, and the old region drains",
    apps.with(async (app) => {
      const old = await app.create(weights);
      await app.seal(old.id);
      using _ = lease(old.storage.path);
      const next = await app.create({ ...replace, tensors: [{ name: "other", dtype: "U8", shape: [9] }] });
      expect(next).toMatchObject({ name: null, pending_name: "weights", state: "open" });
      const byName = () => app.ok<Region>(200, "GET", "/v1/models/default/regions/weights");
      expect((await byName()).id).toBe(old.id);
      expect(await app.seal(next.id)).toMatchObject({ name: "weights", pending_name: null, state: "sealed" });
      expect((await byName()).id).toBe(next.id);
      const { name, state, drain } = await app.get(old.id);
      expect({ name, state, drain }).toEqual({
        name: null,
        state: "draining",
        drain: { reason: "replaced", waits_for: "lease" },
      });
      expect(() => lstatSync(old.storage.path)).toThrow("ENOENT");
    }),
  );

  test(
    "frees the old region at once if nobody maps it",
    withApp(async (app) => {
      const old = await app.create(weights);
      const next = await app.create(replace);
      await app.seal(next.id);
      await app.refused("region-not-found", "GET", `/v1/regions/${old.id}`);
      expect((await app.stats()).regions).toMatchObject({ sealed: 1, draining: 0, open: 0 });
    }),
  );

  test(
    "whose second row cannot be written leaves the first as it was",
    withApp(async (app) => {
      const [old, other] = [await app.create(weights), await app.create({ ...weights, name: "other" })];
      const [first, second] = [old, other].map(({ id }) => app.store.books.region(id));
      if (first === undefined || second === undefined) throw new Error("two regions stand");
      const third = await app.create({ ...weights, name: "third" });
      const rows = [
        { ...first, name: null, revision: 2 },
        { ...second, name: third.name },
      ];
      expect(() => app.store.journal.updateRegions(rows)).toThrow("Cannot take the name");
      recount(app.store);
    }),
  );

  test(
    "that is deleted before its seal leaves the old region in its place",
    apps.with(async (app) => {
      const old = await app.create(weights);
      const next = await app.create(replace);
      await app.remove(next.id);
      expect(await app.ok<Region>(200, "GET", "/v1/models/default/regions/weights")).toMatchObject({ id: old.id });
    }),
  );

  test(
    "that fails to seal leaves the old region in its place",
    apps.with(async (app) => {
      const old = await app.create(weights);
      const next = await app.create(replace);
      {
        using _ = lease(next.storage.path, "write");
        await app.refused("region-has-writers", "POST", `/v1/regions/${next.id}/seal`, {});
      }
      expect(await app.get(next.id)).toMatchObject({ state: "open", name: null, pending_name: "weights" });
      expect(await app.get(old.id)).toMatchObject({ state: "open", name: "weights" });
    }),
  );

  test(
    "takes a name that became free meanwhile, and one that somebody else took meanwhile",
    apps.with(async (app) => {
      const old = await app.create(weights);
      const first = await app.create(replace);
      const second = await app.create(replace);
      await app.remove(old.id);
      expect(await app.seal(first.id)).toMatchObject({ name: "weights" });
      expect(await app.seal(second.id)).toMatchObject({ name: "weights" });
      expect(await app.ok<Region>(200, "GET", "/v1/models/default/regions/weights")).toMatchObject({ id: second.id });
      await app.refused("region-not-found", "GET", `/v1/regions/${first.id}`);
    }),
  );

  test(
    "does not take a name from a region in creation",
    apps.with(async (app) => {
      const creation = app.create({ name: "weights", byte_size: slowBytes });
      const id = await idInState(app, "creating");
      const next = await app.create(replace);
      const refusal = await app.request("POST", `/v1/regions/${next.id}/seal`, {});
      expect(refusal.body).toMatchObject({ code: "region-busy" });
      expect(await app.get(next.id)).toMatchObject({ state: "open", pending_name: "weights" });
      expect((await creation).id).toBe(id);
      expect(await app.seal(next.id)).toMatchObject({ name: "weights" });
    }),
  );
});
