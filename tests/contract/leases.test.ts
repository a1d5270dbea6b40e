/** Leases by request: they keep a region like a mapping does, until they are ended, their TTL is over or their session ends. */

import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { hostOf } from "../../src/server/cli/pools.ts";
import type { Region } from "../harness/answers.ts";
import { type TestApp, until, withApp } from "../harness/app.ts";
import { Clock } from "./support/clock.ts";
import { Hold } from "./support/hold.ts";
import {
  endSession,
  type Lease,
  type LeaseList,
  openSession,
  shortTtlMs,
  takeLease,
  untilGone,
} from "./support/sessions.ts";
import { withTcp } from "./support/socket.ts";

async function listLeases(app: TestApp, region: string): Promise<readonly Lease[]> {
  return (await app.ok<LeaseList>(200, "GET", `/v1/regions/${region}/leases`)).items;
}

describe("a lease", () => {
  test(
    "says what it is of, is where its Location says, and is listed and counted",
    withApp(async (app) => {
      const region = await app.create();
      const session = await openSession(app);
      const before = Date.now();
      const body = { ttl_ms: 60_000, session: session.id };
      const answer = await app.request("POST", `/v1/regions/${region.id}/leases`, body);
      const taken = answer.body as Lease;
      expect(answer.headers.get("location")).toBe(`/v1/leases/${taken.id}`);
      expect(taken).toMatchObject({ region: region.id, session: session.id, ttl_ms: 60_000 });
      expect(taken.id).toMatch(/^lea_[a-z2-7]{26}$/);
      expect(Date.parse(taken.expires_at)).toBeWithin(before + 60_000, Date.now() + 60_001);
      const second = await takeLease(app, region.id);
      expect(second.session).toBeNull();
      expect(await listLeases(app, region.id)).toEqual([taken, second]);
      expect(await app.get(region.id)).toMatchObject({ leases: 2, in_use: true });
      expect(await app.stats()).toMatchObject({ leases: 2 });
      expect(await listLeases(app, (await app.create()).id)).toEqual([]);
    }),
  );

  test(
    "comes in a page, in the order in which they were taken, also when some end between two",
    withApp(async (app) => {
      const { id } = await app.create();
      const taken: string[] = [];
      for (let index = 0; index < 150; index++) taken.push((await takeLease(app, id)).id);
      const path = `/v1/regions/${id}/leases`;
      const first = await app.ok<LeaseList>(200, "GET", path);
      expect(first.items.map((lease) => lease.id)).toEqual(taken.slice(0, 100));
      // The one at which the cursor stands, and the next.
      for (const ended of [taken[99], taken[100]]) await app.ok(200, "DELETE", `/v1/leases/${ended}`);
      const late = await takeLease(app, id);
      const rest = await app.ok<LeaseList>(200, "GET", `${path}?limit=1000&cursor=${first.next_cursor}`);
      expect(rest.items.map((lease) => lease.id)).toEqual([...taken.slice(101), late.id]);
      expect(rest.next_cursor).toBeNull();
      await app.refused("validation-failed", "GET", `${path}?limit=1001`);
      await app.refused("validation-failed", "GET", `${path}?cursor=lea_a`);
    }),
  );

  test(
    "keeps a region that is deleted, until it is ended",
    withApp(async (app) => {
      const { id, storage } = await app.create({ name: "weights" });
      const first = await takeLease(app, id);
      const second = await takeLease(app, id);
      expect(await app.remove(id)).toEqual({ state: "draining", freed_bytes: 0 });
      expect(await app.get(id)).toMatchObject({ state: "draining", drain: { waits_for: "lease" }, leases: 2 });
      await app.ok(200, "DELETE", `/v1/leases/${first.id}`);
      expect(await listLeases(app, id)).toEqual([second]);
      expect(await app.get(id)).toMatchObject({ state: "draining", in_use: true });
      expect(await app.ok<object>(200, "DELETE", `/v1/leases/${second.id}`)).toEqual({ state: "deleted" });
      await untilGone(app, `/v1/regions/${id}`);
      expect(existsSync(storage.path)).toBeFalse();
      expect(hostOf(await app.stats())).toMatchObject({ used_bytes: 0, draining_bytes: 0 });
    }),
  );

  test(
    "keeps the name of a sealed region whose time is over",
    withApp(async (app) => {
      const { id } = await app.create({ name: "weights", ttl_ms: 60_000 });
      await app.seal(id);
      const taken = await takeLease(app, id);
      const { expires_at } = await app.ok<Region>(200, "PATCH", `/v1/regions/${id}`, { ttl_ms: 1 });
      await until("its TTL is over", () => Date.now() > Date.parse(expires_at ?? "") + 50);
      expect(await app.get(id)).toMatchObject({ state: "sealed", name: "weights" });
      await app.ok(200, "DELETE", `/v1/leases/${taken.id}`);
      await untilGone(app, `/v1/regions/${id}`);
    }),
  );

  test(
    "ends when its TTL is over, and not before if it is renewed",
    withApp(async (app) => {
      const { id } = await app.create();
      const ends = await takeLease(app, id, { ttl_ms: shortTtlMs });
      const stays = await takeLease(app, id, { ttl_ms: shortTtlMs });
      await until("some of it is over", () => Date.now() > Date.parse(stays.expires_at) - shortTtlMs * 0.75);
      const renewed = await app.ok<Lease>(200, "POST", `/v1/leases/${stays.id}/renew`);
      expect(renewed).toEqual({ ...stays, expires_at: renewed.expires_at });
      expect(Date.parse(renewed.expires_at)).toBeGreaterThan(Date.parse(stays.expires_at) + 400);
      await until("the other one is over", async () => (await listLeases(app, id)).length === 1);
      expect(Date.now()).toBeGreaterThanOrEqual(Date.parse(ends.expires_at));
      expect(await listLeases(app, id)).toEqual([renewed]);
      await app.refused("lease-not-found", "POST", `/v1/leases/${ends.id}/renew`);
      await until("all are over", async () => (await listLeases(app, id)).length === 0);
      expect(await app.get(id)).toMatchObject({ leases: 0, in_use: false });
    }),
  );

  test(
    "does not run out while its session is held",
    withTcp(async ({ app, url }) => {
      using clock = new Clock();
      const { id } = await app.create();
      const session = await openSession(app);
      const lease = await takeLease(app, id, { ttl_ms: shortTtlMs, session: session.id });
      const other = await takeLease(app, id, { ttl_ms: shortTtlMs });
      using hold = await Hold.open(url, session);
      clock.advance(3_600_000);
      await until("the other one is over", async () => (await listLeases(app, id)).length === 1);
      await until("its time is renewed", async () => {
        const [left] = await listLeases(app, id);
        return left?.id === lease.id && Date.parse(left.expires_at) > Date.parse(other.expires_at) + 1_800_000;
      });
      expect(hold.frames).toEqual([]);
    }),
  );

  test(
    "ends with its session, and others of the region do not",
    withApp(async (app) => {
      const { id } = await app.create();
      const session = await openSession(app);
      await takeLease(app, id, { ttl_ms: 60_000, session: session.id });
      const other = await takeLease(app, id);
      await endSession(app, session);
      expect(await listLeases(app, id)).toEqual([other]);
    }),
  );

  test(
    "does not keep its region from being sealed",
    withApp(async (app) => {
      const { id } = await app.create();
      await takeLease(app, id);
      expect((await app.seal(id)).state).toBe("sealed");
    }),
  );

  test(
    "that is ended twice is ended once",
    withApp(async (app) => {
      const { id } = await app.create();
      await takeLease(app, id);
      const taken = await takeLease(app, id);
      await app.ok(200, "DELETE", `/v1/leases/${taken.id}`);
      await app.refused("lease-not-found", "DELETE", `/v1/leases/${taken.id}`);
      expect(await app.get(id)).toMatchObject({ leases: 1, in_use: true });
    }),
  );
});
