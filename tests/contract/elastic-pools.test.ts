/** Elastic pools over HTTP: what is made, mapped, unmapped, moved and told, and each refusal with its numbers. The device is made up. */

import { describe, expect, test } from "bun:test";
import type { z } from "@hono/zod-openapi";
import { GiB, MiB } from "../../src/memory/limits.ts";
import type { ElasticPoolList } from "../../src/routes/schemas/elastic-pool.ts";
import type { Compaction, ElasticPoolDetail, MappedPages, PoolDeletion, Trim } from "../../src/server/cli/answers.ts";
import { fakeDevice } from "../conformance/support/fake-device.ts";
import { type TestApp, withApp } from "../harness/app.ts";
import { tokenOf } from "../harness/tokens-file.ts";
import { endOf, type Operation } from "./support/operations.ts";
import { makePool, mapAt, pagesBytes, poolPath, poolSize, withPools } from "./support/pools.ts";
import { openSession } from "./support/sessions.ts";

const device = fakeDevice.uuid;
const page = pagesBytes;
const look = (app: TestApp, query = "") => app.ok<ElasticPoolDetail>(200, "GET", `${poolPath()}${query}`);

async function unmap(app: TestApp, byteOffset: number, byteSize: number): Promise<Operation> {
  const asked = { byte_offset: byteOffset, byte_size: byteSize };
  const answer = await app.request("POST", `${poolPath()}/unmap`, asked);
  expect(answer.status).toBeOneOf([200, 202]);
  return await endOf(app, answer.body as Operation);
}

/** Events of pages, as they are kept. */
async function toldOf(app: TestApp): Promise<readonly { readonly type: string; readonly data: object }[]> {
  const { items } = await app.ok<{ items: { type: string; data: object }[] }>(
    200,
    "GET",
    "/v1/events?after=0&types=tensord.vmm.",
  );
  // From the beginning there may be a gap before.
  return items.filter(({ type }) => type.startsWith("tensord.vmm."));
}

describe("an elastic pool", () => {
  test(
    "is made once: the same values find it, and others are refused with both sides' numbers",
    withApp(async (app) => {
      const made = await makePool(app);
      expect(made).toMatchObject({ model: "default", device_uuid: device, physical_bytes: 0, runs: [], workers: [] });
      const asked = { virtual_capacity: poolSize, page_size: page };
      const again = await app.ok<ElasticPoolDetail>(200, "PUT", poolPath(), asked);
      expect(again.id).toBe(made.id);
      const refused = await app.refused("vmm-pool-exists", "PUT", poolPath(), { ...asked, page_size: 2 * page });
      expect(refused).toMatchObject({ existing: { page_size: page }, requested: { page_size: 2 * page } });
    }, withPools),
  );

  test(
    "has pages of a power of two from the granularity to 1 GiB, 64 MiB unless somebody says",
    withApp(async (app) => {
      for (const size of [page / 2, 3 * page, 2 * GiB]) {
        const asked = { virtual_capacity: 6 * GiB, page_size: size };
        const problem = await app.refused("invalid-page-size", "PUT", poolPath(), asked);
        expect(problem).toMatchObject({ granularity: fakeDevice.granularity, page_size: size });
      }
      const pool = await app.ok<ElasticPoolDetail>(201, "PUT", poolPath(), { virtual_capacity: 128 * GiB });
      expect(pool).toMatchObject({ page_size: 64 * MiB, free_bytes: 128 * GiB, physical_bytes: 0 });
    }, withPools),
  );

  test(
    "has a range of whole pages, at most 65,536 of them",
    withApp(async (app) => {
      for (const capacity of [page + 1, 65_537 * page]) {
        const asked = { virtual_capacity: capacity, page_size: page };
        expect(await app.refused("out-of-range", "PUT", poolPath(), asked)).toMatchObject({ page_size: page });
      }
      await app.ok(201, "PUT", poolPath(), { virtual_capacity: 65_536 * page, page_size: page });
    }, withPools),
  );

  test(
    "shows its capacity, page size, physical use, runs, holes and fragmentation",
    withApp(async (app) => {
      await makePool(app);
      await mapAt(app, 0, 2 * page);
      await mapAt(app, 4 * page, page);
      const pool = await look(app);
      expect(pool).toMatchObject({
        ...{ virtual_capacity: poolSize, page_size: page, physical_bytes: 3 * page, mapped_bytes: 3 * page },
        ...{ run_count: 2, free_bytes: poolSize - 3 * page, largest_free_bytes: poolSize - 5 * page },
        free_runs: [
          { byte_offset: 2 * page, byte_size: 2 * page },
          { byte_offset: 5 * page, byte_size: poolSize - 5 * page },
        ],
      });
      expect(pool.runs.map(({ byte_offset, first_page }) => [byte_offset, first_page])).toEqual([
        [0, 1],
        [4 * page, 3],
      ]);
      expect(pool.fragmentation).toBeCloseTo(1 - pool.largest_free_bytes / pool.free_bytes);
      expect("is_mapped" in pool).toBeFalse();
      const { sequence } = pool;
      expect(sequence).toBe(String(app.store.events.last));
    }, withPools),
  );

  test(
    "says of a range whether all of it is mapped",
    withApp(async (app) => {
      await makePool(app);
      await mapAt(app, page, 2 * page);
      const isMapped = async (query: string) => (await look(app, query)).is_mapped;
      expect(await isMapped(`?byte_offset=${page}&byte_size=${2 * page}`)).toBeTrue();
      expect(await isMapped(`?byte_offset=${2 * page}&byte_size=${page}`)).toBeTrue();
      expect(await isMapped(`?byte_offset=${2 * page}&byte_size=${2 * page}`)).toBeFalse();
      expect(await isMapped(`?byte_offset=${2 * page}`)).toBeFalse();
      expect(await isMapped(`?byte_size=${page}`)).toBeFalse();
      await app.refused("out-of-range", "GET", `${poolPath()}?byte_offset=1&byte_size=${page}`);
    }, withPools),
  );

  test(
    "is listed with its sums, page by page, to who may use its model",
    withApp(
      async (app) => {
        app.token = tokenOf("ops");
        await app.register("llama");
        await makePool(app);
        await makePool(app, {}, "llama");
        const list = (query = "") => app.ok<z.infer<typeof ElasticPoolList>>(200, "GET", `/v1/vmm${query}`);
        const first = await list("?limit=1");
        expect(first.items.map(({ model }) => model)).toEqual(["default"]);
        const second = await list(`?limit=1&cursor=${first.next_cursor}`);
        expect([second.items.map(({ model }) => model), second.next_cursor]).toEqual([["llama"], null]);
        expect((await list("?model=llama")).items.length).toBe(1);
        app.token = tokenOf("held");
        expect((await list()).items.map(({ model }) => model)).toEqual(["llama"]);
        await app.refused("forbidden", "GET", poolPath());
      },
      {
        ...withPools,
        tokens: [
          { name: "ops", role: "admin", token: tokenOf("ops") },
          { name: "held", role: "reader", token: tokenOf("held"), models: ["llama"] },
        ],
      },
    ),
  );

  test(
    "of an unknown model, on an unknown device, and none at all are three failures, which name what was asked",
    withApp(async (app) => {
      const asked = { virtual_capacity: poolSize, page_size: page };
      await app.refused("model-not-found", "PUT", poolPath("nobody"), asked);
      await app.refused("device-not-found", "PUT", "/v1/models/default/vmm/GPU-1", asked);
      expect(await app.refused("vmm-pool-not-found", "GET", poolPath())).toMatchObject({
        model: "default",
        device_uuid: device,
      });
    }, withPools),
  );

  test(
    "has limits that change at once, under If-Match",
    withApp(async (app) => {
      await makePool(app);
      const { headers } = await app.request("GET", poolPath());
      const known = { headers: { "if-match": headers.get("etag") ?? "" } };
      const changed = await app.ok<ElasticPoolDetail>(200, "PATCH", poolPath(), { maximum_bytes: page }, known);
      expect(changed).toMatchObject({ maximum_bytes: page, revision: 2 });
      await app.refused("revision-mismatch", "PATCH", poolPath(), { maximum_bytes: null }, known);
      await mapAt(app, 0, page);
      const full = await app.refused("pool-full", "POST", `${poolPath()}/map`, { byte_size: page });
      expect(full).toMatchObject({ requested_bytes: page, available_bytes: 0 });
      expect(full.detail).toContain(changed.id);
      await app.ok(200, "PATCH", poolPath(), { maximum_bytes: null });
      await mapAt(app, page, page);
    }, withPools),
  );

  test(
    "is deleted with its pages, which are told as unmapped",
    withApp(async (app) => {
      await makePool(app);
      await mapAt(app, 0, 2 * page);
      const deleted = await app.ok<PoolDeletion>(200, "DELETE", poolPath());
      expect(deleted).toEqual({ state: "deleted", freed_bytes: 2 * page });
      await app.refused("vmm-pool-not-found", "DELETE", poolPath());
      expect((await toldOf(app)).at(-1)).toMatchObject({
        type: "tensord.vmm.unmapped",
        data: { reason: "deleted", runs: [{ byte_offset: 0, byte_size: 2 * page, first_page: 1 }] },
      });
      const { pools } = await app.stats();
      expect(pools.find(({ pool }) => pool === device)?.used_bytes ?? 0).toBe(0);
    }, withPools),
  );
});

describe("pages", () => {
  test(
    "are mapped at an offset, or into the first hole that fits, and told with all that a worker needs",
    withApp(async (app) => {
      const { id } = await makePool(app);
      await mapAt(app, 2 * page, page);
      const asked = { byte_size: 2 * page, evictable: true };
      const { run, sequence } = await app.ok<MappedPages>(200, "POST", `${poolPath()}/map`, asked);
      expect(run).toMatchObject({ byte_offset: 0, byte_size: 2 * page, first_page: 2, evictable: true, session: null });
      const next = await app.ok<MappedPages>(200, "POST", `${poolPath()}/map`, { byte_size: 2 * page });
      expect(next.run.byte_offset).toBe(3 * page);
      const told = await toldOf(app);
      expect(told[1]).toMatchObject({
        id: sequence,
        type: "tensord.vmm.mapped",
        subject: id,
        data: {
          ...{ model: "default", device_uuid: device, pool: id, page_size: page, reason: "request" },
          runs: [{ byte_offset: 0, byte_size: 2 * page, first_page: 2, evictable: true, session: null }],
        },
      });
    }, withPools),
  );

  test(
    "that lie there already, or would lie outside of the range, are refused with where",
    withApp(async (app) => {
      await makePool(app);
      await mapAt(app, page, page);
      const map = `${poolPath()}/map`;
      const there = await app.refused("already-mapped", "POST", map, { byte_offset: 0, byte_size: 2 * page });
      expect(there).toMatchObject({ byte_offset: page });
      for (const asked of [
        { byte_offset: poolSize, byte_size: page },
        { byte_offset: 1, byte_size: page },
        { byte_offset: 0, byte_size: page + 1 },
        { byte_size: poolSize + page },
      ]) {
        await app.refused("out-of-range", "POST", map, asked);
      }
      const hole = await app.refused("out-of-range", "POST", map, { byte_size: poolSize });
      expect(hole).toMatchObject({ largest_free_bytes: poolSize - 2 * page });
    }, withPools),
  );

  test(
    "go by an operation that ends when they are given back, and a part of a run may go alone",
    withApp(async (app) => {
      const { id } = await makePool(app);
      await mapAt(app, 0, 3 * page);
      const operation = await unmap(app, page, page);
      expect(operation).toMatchObject({
        ...{ kind: "unmap", state: "succeeded", source: id, region: null },
        ...{ done_bytes: page, total_bytes: page },
      });
      const { runs, physical_bytes: physical } = await look(app);
      expect(physical).toBe(2 * page);
      expect(runs.map(({ byte_offset, byte_size, first_page }) => [byte_offset, byte_size, first_page])).toEqual([
        [0, page, 1],
        [2 * page, page, 3],
      ]);
      expect((await toldOf(app)).at(-1)).toMatchObject({
        type: "tensord.vmm.unmapped",
        data: { reason: "request", actor: expect.any(String), runs: [{ byte_offset: page, first_page: 2 }] },
      });
    }, withPools),
  );

  test(
    "that are not mapped cannot be unmapped, and the refusal says where",
    withApp(async (app) => {
      await makePool(app);
      await mapAt(app, 0, page);
      const asked = { byte_offset: 0, byte_size: 2 * page };
      expect(await app.refused("not-mapped", "POST", `${poolPath()}/unmap`, asked)).toMatchObject({
        byte_offset: page,
      });
      await app.refused("out-of-range", "POST", `${poolPath()}/unmap`, { byte_offset: poolSize, byte_size: page });
      expect((await look(app)).mapped_bytes).toBe(page);
    }, withPools),
  );

  test(
    "that no worker has taken are given back by a trim",
    withApp(async (app) => {
      await makePool(app);
      await mapAt(app, 0, 2 * page);
      const trimmed = await app.ok<Trim>(200, "POST", `${poolPath()}/trim`);
      expect(trimmed).toMatchObject({ freed_bytes: 2 * page, sequence: expect.any(String) });
      expect(await look(app)).toMatchObject({ mapped_bytes: 0, physical_bytes: 0, runs: [] });
      expect((await toldOf(app)).at(-1)).toMatchObject({ data: { reason: "trimmed" } });
    }, withPools),
  );

  test(
    "move into the holes before them by a compaction, under the numbers that they have",
    withApp(async (app) => {
      await makePool(app);
      await mapAt(app, 2 * page, page);
      await mapAt(app, 5 * page, 2 * page);
      const { moves, sequence } = await app.ok<Compaction>(200, "POST", `${poolPath()}/compact`);
      expect(moves).toEqual([
        { from_byte_offset: 2 * page, to_byte_offset: 0, byte_size: page, first_page: 1 },
        { from_byte_offset: 5 * page, to_byte_offset: page, byte_size: 2 * page, first_page: 2 },
      ]);
      expect((await toldOf(app)).at(-1)).toMatchObject({ id: sequence, type: "tensord.vmm.moved", data: { moves } });
      expect(await look(app)).toMatchObject({ fragmentation: 0, largest_free_bytes: poolSize - 3 * page });
      expect((await app.ok<Compaction>(200, "POST", `${poolPath()}/compact`)).moves).toEqual([]);
    }, withPools),
  );

  test(
    "that exceed the model's limit of the device, or the device's, are refused by a code each, and none is mapped",
    withApp(async (app) => {
      const limits = [{ pool: device, limit_bytes: 2 * page }];
      await app.ok(201, "POST", "/v1/models", { name: "small", limits });
      await makePool(app, {}, "small");
      const map = (model: string, byteSize: number) =>
        app.refused(model === "small" ? "model-limit-exceeded" : "pool-full", "POST", `${poolPath(model)}/map`, {
          byte_size: byteSize,
        });
      expect(await map("small", 3 * page)).toMatchObject({ requested_bytes: 3 * page, available_bytes: 2 * page });
      await makePool(app, { virtual_capacity: 2 * fakeDevice.totalBytes });
      expect(await map("default", fakeDevice.totalBytes + page)).toMatchObject({
        requested_bytes: fakeDevice.totalBytes + page,
      });
      expect((await app.ok<ElasticPoolDetail>(200, "GET", poolPath("small"))).mapped_bytes).toBe(0);
    }, withPools),
  );

  test(
    "of a session go with it, and not before",
    withApp(async (app) => {
      await makePool(app);
      const session = await openSession(app);
      await mapAt(app, 0, page);
      const asked = { byte_size: page, session: session.id };
      const { run } = await app.ok<MappedPages>(200, "POST", `${poolPath()}/map`, asked);
      expect(run.session).toBe(session.id);
      await app.ok(200, "DELETE", `/v1/sessions/${session.id}`);
      expect((await look(app)).runs.map(({ byte_offset }) => byte_offset)).toEqual([0]);
      expect((await toldOf(app)).at(-1)).toMatchObject({ data: { reason: "session" } });
    }, withPools),
  );

  test(
    "of one model that may go make room for another's, least recently used first",
    withApp(async (app) => {
      await app.register("llama");
      await makePool(app, { virtual_capacity: fakeDevice.totalBytes });
      await makePool(app, { virtual_capacity: fakeDevice.totalBytes }, "llama");
      const whole = { byte_size: fakeDevice.totalBytes, evictable: true };
      await app.ok(200, "POST", `${poolPath()}/map`, whole);
      for (const each of app.store.books.evictables) Object.assign(each, { lastUsedAt: 0 });
      const asked = { byte_size: page };
      await app.refused("pool-full", "POST", `${poolPath("llama")}/map`, asked);
      await app.ok(200, "POST", `${poolPath("llama")}/map`, { ...asked, on_full: "evict" });
      expect((await toldOf(app)).some(({ data }) => (data as { reason?: string }).reason === "evicted")).toBeTrue();
    }, withPools),
  );
});
