/** The end of a region by itself: when its TTL is over, and what a lease changes about that. */

import { describe, expect, test } from "bun:test";
import { existsSync, lstatSync } from "node:fs";
import { hostOf } from "../../src/server/cli/pools.ts";
import type { Region, RegionDetail } from "../harness/answers.ts";
import { type TestApp, until, withApp } from "../harness/app.ts";
import { lease } from "./support/lease.ts";

const minuteMs = 60_000;
/** Short enough to be waited for, long enough for a few requests before, on a machine that is busy too. */
const shortMs = 2000;

function untilGone(app: TestApp, id: string): Promise<true> {
  return until(`${id} is gone`, async () => (await app.request("GET", `/v1/regions/${id}`)).status === 404);
}

function untilState(app: TestApp, id: string, state: string): Promise<RegionDetail> {
  return until(`${id} is ${state}`, async () => {
    const region = await app.get(id);
    return region.state === state ? region : undefined;
  });
}

/** Gives the region a TTL that is as good as over, once all that must be before is done. */
async function hasten(app: TestApp, id: string): Promise<void> {
  await app.ok(200, "PATCH", `/v1/regions/${id}`, { ttl_ms: 1 });
}

/** Resolves when a TTL of `ms` that began before is over. */
function pass(ms: number): Promise<unknown> {
  const end = Date.now() + ms;
  return until(`${ms} ms are over`, () => Date.now() > end);
}

describe("a region whose TTL is over", () => {
  test(
    "goes, open or sealed, with its name, its file and its bytes",
    withApp(async (app) => {
      const before = app.footprint();
      const open = await app.create({ name: "open", ttl_ms: 50 });
      const sealed = await app.create({ name: "sealed", ttl_ms: minuteMs });
      await app.seal(sealed.id);
      await hasten(app, sealed.id);
      const stays = await app.create({ ttl_ms: 60_000 });
      for (const { id, storage } of [open, sealed]) {
        await untilGone(app, id);
        expect(Date.now()).toBeGreaterThanOrEqual(Date.parse(open.expires_at ?? ""));
        expect(existsSync(storage.path)).toBeFalse();
      }
      await app.remove(stays.id);
      expect(app.footprint()).toEqual(before);
    }),
  );

  test(
    "drains if it is open and somebody maps it, and goes with the last lease",
    withApp(async (app) => {
      const { id, storage } = await app.create({ name: "weights", ttl_ms: minuteMs });
      {
        using _ = lease(storage.path);
        using __ = lease(storage.path, "write");
        await hasten(app, id);
        const draining = await untilState(app, id, "draining");
        expect(draining).toMatchObject({ name: null, in_use: true, drain: { reason: "ttl", waits_for: "lease" } });
        expect(existsSync(storage.path)).toBeFalse();
        await app.create({ name: "weights" });
      }
      await untilGone(app, id);
    }),
  );

  test(
    "keeps its name if it is sealed and somebody maps it, and goes with the last lease",
    withApp(async (app) => {
      const { id, storage } = await app.create({ name: "weights", ttl_ms: minuteMs });
      await app.seal(id);
      {
        using _ = lease(storage.path);
        await hasten(app, id);
        await pass(200);
        expect(await app.ok<Region>(200, "GET", "/v1/models/default/regions/weights")).toMatchObject({
          id,
          state: "sealed",
        });
        expect(lstatSync(storage.path).size).toBe(storage.byte_size);
        await app.refused("name-taken", "POST", "/v1/regions", { name: "weights", byte_size: 1, ttl_ms: 1000 });
      }
      await untilGone(app, id);
      expect(existsSync(storage.path)).toBeFalse();
    }),
  );

  test(
    "can be deleted by request while a lease keeps it, and then has no name",
    withApp(async (app) => {
      const { id, storage } = await app.create({ name: "weights", ttl_ms: minuteMs });
      await app.seal(id);
      {
        using _ = lease(storage.path);
        await hasten(app, id);
        await pass(200);
        expect(await app.remove(id)).toEqual({ state: "draining", freed_bytes: 0 });
        expect(await app.get(id)).toMatchObject({ name: null, drain: { reason: "request" } });
      }
      await untilGone(app, id);
    }),
  );

  test(
    "may be given a longer life while a lease keeps it",
    withApp(async (app) => {
      const { id, storage } = await app.create({ name: "weights", ttl_ms: minuteMs });
      await app.seal(id);
      {
        using _ = lease(storage.path);
        await hasten(app, id);
        await pass(200);
        await app.ok(200, "PATCH", `/v1/regions/${id}`, { persist: true });
      }
      // Twice the time in which the server asks again.
      await pass(2100);
      expect(await app.get(id)).toMatchObject({ state: "sealed", name: "weights", in_use: false });
    }),
  );

  test(
    "is a free name again for a wait and for an attach",
    withApp(async (app) => {
      const first = await app.create({ name: "weights", ttl_ms: minuteMs });
      const headers = { prefer: "wait=60" };
      const waiting = app.request("GET", "/v1/models/default/regions/weights", undefined, { headers });
      await hasten(app, first.id);
      await untilGone(app, first.id);
      const next = await app.create({ name: "weights", if_exists: "attach" });
      expect(next.id).not.toBe(first.id);
      await app.seal(next.id);
      expect((await waiting).body).toMatchObject({ id: next.id });
    }),
  );
});

describe("a TTL", () => {
  test(
    "that was raised in time does not end at the earlier time",
    withApp(async (app) => {
      const patched = await app.create({ ttl_ms: shortMs });
      const attached = await app.create({ name: "weights", ttl_ms: shortMs });
      const persistent = await app.create({ name: "persistent", ttl_ms: shortMs });
      await app.ok(200, "PATCH", `/v1/regions/${patched.id}`, { ttl_ms: 60_000 });
      await app.ok(200, "PATCH", `/v1/regions/${persistent.id}`, { persist: true });
      const attach = { name: "weights", byte_size: 64, ttl_ms: 60_000, if_exists: "attach" };
      await app.ok(200, "POST", "/v1/regions", attach);
      // It was given its TTL after them, so theirs would be over before.
      const witness = await app.create({ ttl_ms: shortMs });
      await untilGone(app, witness.id);
      for (const { id } of [patched, attached, persistent]) expect((await app.get(id)).state).toBe("open");
    }),
  );

  test(
    "that was lowered ends at the earlier time",
    withApp(async (app) => {
      const { id } = await app.create({ ttl_ms: 60_000 });
      await app.ok(200, "PATCH", `/v1/regions/${id}`, { ttl_ms: 1 });
      await untilGone(app, id);
    }),
  );

  test(
    "of many regions ends for each of them",
    withApp(async (app) => {
      for (let index = 0; index < 600; index++) await app.create({ byte_size: 0, ttl_ms: 1 + (index % 200) });
      await until("all are gone", async () => (await app.stats()).regions.open === 0);
      expect(hostOf(await app.stats())).toMatchObject({ used_bytes: 0, draining_bytes: 0 });
    }),
  );
});
