/** PATCH of a region: TTL, persistence and labels, on the revision that the client knows. */

import { afterAll, describe, expect, test } from "bun:test";
import { TensordError } from "../../src/memory/error.ts";
import { limits } from "../../src/memory/limits.ts";
import type { Answer, Region } from "../harness/answers.ts";
import { type TestApp, withApp } from "../harness/app.ts";
import { tokenOf } from "../harness/instance.ts";
import { LentApps } from "../harness/lent-app.ts";
import { lease } from "./support/lease.ts";
import { idInState, slowBytes } from "./support/region-failures.ts";

const apps = new LentApps();
afterAll(() => apps.end());

function patch(app: TestApp, id: string, body: object): Promise<Region> {
  return app.ok(200, "PATCH", `/v1/regions/${id}`, body);
}

function patchIf(app: TestApp, id: string, ifMatch: string): Promise<Answer> {
  return app.request("PATCH", `/v1/regions/${id}`, { ttl_ms: 9000 }, { headers: { "if-match": ifMatch } });
}

describe("a new TTL", () => {
  test(
    "counts from now and is the new owner",
    withApp(async (app) => {
      const { id } = await app.create({ ttl_ms: 600_000 });
      const before = Date.now();
      const changed = await patch(app, id, { ttl_ms: 5000 });
      expect(changed).toMatchObject({ owner: { kind: "ttl", ttl_ms: 5000 }, revision: 2 });
      expect(Date.parse(changed.expires_at ?? "")).toBeWithin(before + 5000, Date.now() + 5001);
    }),
  );

  test(
    "may be of one millisecond, or of ten years",
    withApp(async (app) => {
      const { id } = await app.create();
      const { expires_at } = await patch(app, id, { ttl_ms: limits.ttlMs });
      expect(Date.parse(expires_at ?? "")).toBeGreaterThan(Date.now() + 9 * 365 * 24 * 3600 * 1000);
      await app.refused("validation-failed", "PATCH", `/v1/regions/${id}`, { ttl_ms: limits.ttlMs + 1 });
      await patch(app, id, { ttl_ms: 1 });
    }),
  );

  test(
    "ends a life that was to persist, and persistence ends a TTL",
    withApp(async (app) => {
      const { id } = await app.create({ name: "weights", persist: true });
      expect(await patch(app, id, { ttl_ms: 5000 })).toMatchObject({ owner: { kind: "ttl", ttl_ms: 5000 } });
      expect(await patch(app, id, { persist: true })).toMatchObject({ owner: { kind: "persist" }, expires_at: null });
    }),
  );

  test(
    "lets a region persist that has a name, or will have one",
    apps.with(async (app) => {
      await app.create({ name: "weights" });
      const next = await app.create({ name: "weights", if_exists: "replace" });
      expect(await patch(app, next.id, { persist: true })).toMatchObject({ owner: { kind: "persist" }, name: null });
      const { id } = await app.create();
      await app.refused("validation-failed", "PATCH", `/v1/regions/${id}`, { persist: true });
    }),
  );

  test(
    "stands beside `persist: false`, which alone changes nothing: neither persistence nor a TTL",
    apps.with(async (app) => {
      const { id } = await app.create({ name: "weights", persist: true });
      expect(await patch(app, id, { persist: false })).toMatchObject({ owner: { kind: "persist" } });
      const ttl = { owner: { kind: "ttl", ttl_ms: 5000 } };
      expect(await patch(app, id, { persist: false, ttl_ms: 5000 })).toMatchObject(ttl);
      expect(await patch(app, id, { persist: false, labels: { job: "nightly" } })).toMatchObject(ttl);
    }),
  );
});

describe("labels", () => {
  test(
    "are merged: new ones come, named ones change, null takes away, the rest stays",
    apps.with(async (app) => {
      const { id } = await app.create({ labels: { stays: "1", changes: "1", goes: "1" } });
      const { labels, owner } = await patch(app, id, { labels: { changes: "2", goes: null, comes: "2", never: null } });
      expect(labels).toEqual({ stays: "1", changes: "2", comes: "2" });
      expect(owner).toEqual({ kind: "ttl", ttl_ms: 600_000 });
    }),
  );

  test(
    "may be as many and as long as the limits say, and carry any text",
    withApp(async (app) => {
      const most = Object.fromEntries(
        Array.from({ length: limits.labels }, (_, index) => {
          return [`${index}`.padEnd(limits.labelKeyCharacters, "k"), "ü".repeat(limits.labelValueCharacters)];
        }),
      );
      const { id, labels } = await app.create({ labels: most });
      expect(labels).toEqual(most);
      const odd = { constructor: "c", toString: "t", "a=b": "=", "größe 😀": '"\n\\', hasOwnProperty: "" };
      const other = await app.create({ labels: odd });
      expect(other.labels).toEqual(odd);
      expect((await app.get(id)).labels).toEqual(most);
    }),
  );

  test(
    "are never more than the limit, however they are put together",
    withApp(async (app) => {
      const some = (prefix: string, count: number) =>
        Object.fromEntries(Array.from({ length: count }, (_, index) => [`${prefix}${index}`, "v"]));
      const { id } = await app.create({ labels: some("a", limits.labels) });
      await app.refused("validation-failed", "PATCH", `/v1/regions/${id}`, { labels: { one: "more" } });
      expect(await app.get(id)).toMatchObject({ revision: 1, labels: some("a", limits.labels) });
      const swapped = { ...Object.fromEntries(Object.keys(some("a", 16)).map((key) => [key, null])), ...some("b", 16) };
      expect(Object.keys((await patch(app, id, { labels: swapped })).labels).length).toBe(limits.labels);
    }),
  );

  for (const method of ["POST", "PATCH"]) {
    test(
      `called __proto__ are kept or refused by ${method}, and never dropped in silence`,
      apps.with(async (app) => {
        const { id } = await app.create();
        const path = method === "POST" ? "/v1/regions" : `/v1/regions/${id}`;
        const rest = method === "POST" ? '"byte_size":64,"ttl_ms":60000,' : "";
        const { status, body } = await app.request(method, path, `{${rest}"labels":{"__proto__":"x","a":"b"}}`);
        if (status >= 400) return expect(body).toMatchObject({ code: "validation-failed" });
        expect(Object.entries((body as Region).labels)).toEqual([
          ["__proto__", "x"],
          ["a", "b"],
        ]);
      }),
    );
  }
});

describe("If-Match", () => {
  test(
    "lets the known revision change, and answers with the next one",
    apps.with(async (app) => {
      const { id } = await app.create();
      const { status, headers, body } = await patchIf(app, id, '"1"');
      expect({ status, etag: headers.get("etag"), body }).toMatchObject({
        status: 200,
        etag: `"${id}.2"`,
        body: { revision: 2 },
      });
      expect((await patchIf(app, id, "*")).body).toMatchObject({ revision: 3 });
    }),
  );

  test(
    "keeps out who knows an older or a later one, and changes nothing",
    apps.with(async (app) => {
      const { id } = await app.create();
      await patch(app, id, { ttl_ms: 5000 });
      for (const stale of ['"1"', '"3"', '"0"']) {
        expect((await patchIf(app, id, stale)).body).toMatchObject({ code: "revision-mismatch", status: 412 });
      }
      expect(await app.get(id)).toMatchObject({ revision: 2, owner: { kind: "ttl", ttl_ms: 5000 } });
    }),
  );

  for (const other of ['""', '"one"', '"-1"', '"1.0"', '"01"', '"9999999999999999"', 'W/"2"', '"2", "3"']) {
    test(
      `${other} is another one`,
      apps.with(async (app) => {
        const { id } = await app.create();
        expect((await patchIf(app, id, other)).body).toMatchObject({ code: "revision-mismatch" });
        expect((await app.get(id)).revision).toBe(1);
      }),
    );
  }

  test(
    "lets one of many changes on one revision through",
    apps.with(async (app) => {
      const { id } = await app.create();
      const answers = await Promise.all(Array.from({ length: 20 }, () => patchIf(app, id, '"1"')));
      expect(answers.filter(({ status }) => status === 200).length).toBe(1);
      expect(answers.filter(({ status }) => status === 412).length).toBe(19);
    }),
  );
});

describe("a change", () => {
  test(
    "of nothing is a change of the revision alone",
    withApp(async (app) => {
      const region = await app.create({ labels: { a: "b" } });
      const { last_used_at: _, ...rest } = await patch(app, region.id, {});
      expect(rest).toMatchObject({ revision: 2, labels: region.labels, expires_at: region.expires_at });
    }),
  );

  test(
    "is open to a sealed region, whose seal it does not touch",
    apps.with(async (app) => {
      const { id } = await app.create();
      const sealed = await app.seal(id, { checksum: true });
      const changed = await patch(app, id, { ttl_ms: 5000 });
      expect(changed).toMatchObject({ state: "sealed", checksum: sealed.checksum, sealed_at: sealed.sealed_at });
      expect(await app.verify(id)).toMatchObject({ ok: true });
    }),
  );

  test(
    "during a seal is kept by the seal",
    apps.with(async (app) => {
      const { id } = await app.create({ byte_size: slowBytes });
      const sealing = app.seal(id, { checksum: true });
      expect(await idInState(app, "sealing")).toBe(id);
      await patch(app, id, { labels: { while: "sealing" } });
      expect(await sealing).toMatchObject({ labels: { while: "sealing" }, state: "sealed", revision: 3 });
    }),
  );
});

describe("a change by name", () => {
  const path = "/v1/models/default/regions/weights";

  test(
    "is answered as one by id, and keeps out who knows another revision",
    apps.with(async (app) => {
      const { id } = await app.create({ name: "weights" });
      const ask = (ifMatch: string) =>
        app.request("PATCH", path, { labels: { a: "b" } }, { headers: { "if-match": ifMatch } });
      const { status, headers, body } = await ask(`"${id}.1"`);
      expect({ status, etag: headers.get("etag") }).toEqual({ status: 200, etag: `"${id}.2"` });
      expect(body).toMatchObject({ id, name: "weights", revision: 2, labels: { a: "b" } });
      expect((await ask(`"${id}.1"`)).body).toMatchObject({ code: "revision-mismatch" });
      expect((await ask("1")).body).toMatchObject({ code: "validation-failed" });
      expect(await app.get(id)).toMatchObject({ revision: 2, labels: { a: "b" } });
    }),
  );

  test(
    "is no use of the region, as to find it is",
    withApp(async (app) => {
      const first = await app.create({ name: "weights", evictable: true });
      const second = await app.create({ evictable: true });
      const leastUsedFirst = () =>
        [...app.store.books.evictables].flatMap((one) => ("evict" in one ? [] : `reg_${one.token}`));
      await app.ok(200, "PATCH", path, { labels: { a: "b" } });
      expect(leastUsedFirst()).toEqual([first.id, second.id]);
      await app.ok(200, "GET", path);
      expect(leastUsedFirst()).toEqual([second.id, first.id]);
    }),
  );
});

describe("a row that cannot be written", () => {
  const name = "weights";
  const ways: readonly (readonly [string, string, (id: string) => string, object | undefined])[] = [
    ["a change", "PATCH", (id) => `/v1/regions/${id}`, { ttl_ms: 900_000, evictable: true, labels: { a: "b" } }],
    ["an attach", "POST", () => "/v1/regions", { name, byte_size: 64, ttl_ms: 900_000, if_exists: "attach" }],
    ["a seal", "POST", (id) => `/v1/regions/${id}/seal`, {}],
    ["a delete while somebody maps it", "DELETE", (id) => `/v1/regions/${id}`, undefined],
  ];
  for (const [what, method, toPath, body] of ways) {
    test(
      `is ${what} that leaves the region as it was, with its name, and told to nobody`,
      withApp(async (app) => {
        const { id, storage } = await app.create({ name });
        using _ = lease(storage.path);
        const { last_used_at: _before, ...before } = await app.get(id);
        const told = app.store.events.history().next;
        using _full = fillJournal(app);
        await app.refused("out-of-shared-memory", method, toPath(id), body);
        const { last_used_at: _after, ...after } = await app.get(id);
        expect(after).toEqual(before);
        expect(await app.ok<Region>(200, "GET", `/v1/models/default/regions/${name}`)).toMatchObject({ id });
        expect(app.store.events.history().next).toBe(told);
      }),
    );
  }
});

test(
  "a change whose row is written and whose proof is not stands, is told to the operator, and is proved by the next one",
  withApp(async (app) => {
    const { id } = await app.create({ name: "weights", ttl_ms: 60_000 });
    const { proofs } = app.store;
    const { put } = proofs;
    proofs.put = () => {
      throw new TensordError("out-of-shared-memory", "Cannot write it: no page is free", { hint: "Free some." });
    };
    const change = (ttl_ms: number) => app.ok<Region>(200, "PATCH", `/v1/regions/${id}`, { ttl_ms });
    expect((await change(90_000)).owner).toEqual({ kind: "ttl", ttl_ms: 90_000 });
    expect(app.warnings.splice(0)).toMatchObject([expect.stringMatching(/^Cannot prove reg_/)]);
    Object.assign(proofs, { put });
    await change(80_000);
    expect(proofs.find(tokenOf(id))?.owner).toEqual({ kind: "ttl", ttlMs: 80_000 });
  }),
);

/** Lets no row be changed until disposed. */
function fillJournal({ store: { journal } }: TestApp): Disposable {
  const { updateRegions } = journal;
  journal.updateRegions = () => {
    throw new TensordError("out-of-shared-memory", "Cannot write to the journal: no page is free", {
      hint: "Free some.",
    });
  };
  return { [Symbol.dispose]: () => Object.assign(journal, { updateRegions }) };
}
