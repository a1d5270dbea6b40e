/**
 * Linger: a region lives as long as somebody uses it, and a while after. What is asked here in lists is on purpose: they
 * hand nothing out, and so give nothing more time.
 */

import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { limits } from "../../src/memory/limits.ts";
import type { StoreEvent } from "../../src/memory/state/store-event.ts";
import { hostOf } from "../../src/server/cli/pools.ts";
import type { Region } from "../harness/answers.ts";
import { type TestApp, until, withApp } from "../harness/app.ts";
import { Clock } from "./support/clock.ts";
import { lease } from "./support/lease.ts";
import { leasedAt, peek, untilAsked, untilEnded, untilSeen } from "./support/linger.ts";
import { claimName, openSession, takeLease } from "./support/sessions.ts";

describe("a region that lingers", () => {
  test(
    "and was never leased ends that long after its creation",
    withApp(async (app) => {
      using clock = new Clock();
      const region = await app.create({ name: "weights", linger_ms: 60_000 });
      expect(region).toMatchObject({ owner: { kind: "linger", linger_ms: 60_000 }, session: null });
      clock.advance(59_000);
      const { expires_at } = await untilAsked(app, region);
      expect(Date.parse(expires_at ?? "")).toBe(Date.parse(region.created_at) + 60_000);
      clock.advance(1000);
      await untilEnded(app, region);
      expect(existsSync(region.storage.path)).toBeFalse();
      expect(hostOf(await app.stats())).toMatchObject({ used_bytes: 0, draining_bytes: 0 });
    }),
  );

  for (const state of ["open", "sealed"]) {
    test(
      `and is ${state} stays while it is mapped, with its name, and ends that long after its last lease was seen`,
      withApp(async (app) => {
        using clock = new Clock();
        const region = await app.create({ name: "weights", linger_ms: 60_000 });
        if (state === "sealed") await app.seal(region.id);
        {
          using _ = lease(region.storage.path);
          for (let hours = 0; hours < 3; hours++) {
            clock.advance(3_600_000);
            await untilSeen(app, region);
            expect(await peek(app, region)).toMatchObject({ state, name: "weights" });
          }
        }
        const seen = leasedAt(app, region);
        clock.advance(59_000);
        const { expires_at } = await untilAsked(app, region);
        expect(Date.parse(expires_at ?? "")).toBeWithin(seen + 60_000, leasedAt(app, region) + 60_001);
        clock.advance(1000);
        await untilEnded(app, region);
      }),
    );
  }

  test(
    "stays for a lease by request like for a mapping",
    withApp(async (app) => {
      using clock = new Clock();
      const region = await app.create({ linger_ms: 0 });
      await app.seal(region.id);
      const { id } = await takeLease(app, region.id, { ttl_ms: limits.sessionTtlMaxMs });
      clock.advance(3_600_000);
      await untilSeen(app, region);
      await app.ok(200, "DELETE", `/v1/leases/${id}`);
      clock.advance(limits.handOutMs);
      await untilEnded(app, region);
    }),
  );

  test(
    "says why it ended",
    withApp(async (app) => {
      using clock = new Clock();
      const reasons: unknown[] = [];
      app.store.listen((event: StoreEvent) => {
        if (event.type === "tensord.region.deleted") reasons.push(event.region.reason);
      });
      const region = await app.create({ linger_ms: 0, handoff_ms: 0 });
      clock.advance(limits.handOutMs);
      await untilEnded(app, region);
      expect(reasons).toEqual(["linger"]);
    }),
  );

  test(
    "may be given more time, and less, and another owner",
    withApp(async (app) => {
      using clock = new Clock();
      const region = await app.create({ name: "weights", linger_ms: 60_000 });
      const other = await app.create({ ttl_ms: 3_600_000 });
      await app.ok(200, "PATCH", `/v1/regions/${region.id}`, { linger_ms: 3_600_000 });
      await app.ok(200, "PATCH", `/v1/regions/${other.id}`, { linger_ms: 120_000 });
      clock.advance(110_000);
      await untilAsked(app, other);
      expect(await peek(app, region)).toMatchObject({ owner: { kind: "linger", linger_ms: 3_600_000 } });
      clock.advance(10_000);
      await untilEnded(app, other);
      await app.ok(200, "PATCH", `/v1/regions/${region.id}`, { linger_ms: 0 });
      clock.advance(limits.handOutMs);
      await untilEnded(app, region);
    }),
  );

  test(
    "gets the longer time of who attaches and asks for more, and never less",
    withApp(async (app) => {
      const request = { name: "weights", byte_size: 64, if_exists: "attach" };
      const { id } = await app.create({ ...request, linger_ms: 60_000 });
      const attach = async (linger_ms: number) =>
        (await app.ok<Region>(200, "POST", "/v1/regions", { ...request, linger_ms })).owner.linger_ms;
      expect(await attach(30_000)).toBe(60_000);
      expect(await attach(90_000)).toBe(90_000);
      expect((await app.get(id)).owner).toEqual({ kind: "linger", linger_ms: 90_000, handoff_ms: 60_000 });
    }),
  );
});

describe("who was handed a region that hardly lingers", () => {
  const ways: readonly (readonly [string, (app: TestApp, region: Region) => Promise<unknown>])[] = [
    ["a GET by id", (app, { id }) => app.get(id)],
    ["a GET by name", (app) => app.ok(200, "GET", "/v1/models/default/regions/weights")],
    ["an attach", (app) => app.ok(200, "POST", "/v1/regions", { ...request, if_exists: "attach" })],
    ["a claim", async (app) => claimName(app, await openSession(app))],
    ["a lease", async (app, { id }) => app.ok(200, "DELETE", `/v1/leases/${(await takeLease(app, id)).id}`)],
  ];
  /** A hand-off has rules of its own. */
  const request = { name: "weights", byte_size: 64, linger_ms: 1 };

  test(
    "by its creation has ten seconds to map it",
    withApp(async (app) => {
      using clock = new Clock();
      const region = await app.create(request);
      clock.advance(9000);
      const { expires_at } = await untilAsked(app, region);
      expect(Date.parse(expires_at ?? "")).toBe(Date.parse(region.created_at) + 10_000);
      clock.advance(1000);
      await untilEnded(app, region);
    }),
  );

  for (const [what, handOut] of ways) {
    test(
      `by ${what} has ten seconds from then`,
      withApp(async (app) => {
        using clock = new Clock();
        const region = await app.create(request);
        await app.seal(region.id);
        clock.advance(9000);
        const before = Date.now();
        await handOut(app, region);
        clock.advance(9000);
        const { expires_at } = await untilAsked(app, region);
        expect(Date.parse(expires_at ?? "")).toBeGreaterThanOrEqual(before + 10_000);
        clock.advance(1000);
        await untilEnded(app, region);
      }),
    );
  }

  test(
    "has one second once it was seen mapped since, so that what hardly lingers is gone when its last user lets go",
    withApp(async (app) => {
      const region = await app.create(request);
      await app.seal(region.id);
      const { last_used_at } = await app.get(region.id);
      {
        using _ = lease(region.storage.path);
        await untilSeen(app, region);
        const { expires_at } = await untilAsked(app, region);
        expect(Date.parse(expires_at ?? "")).toBe(Date.parse(last_used_at) + 1000);
      }
      await untilEnded(app, region);
      expect(Date.now()).toBeGreaterThanOrEqual(Date.parse(last_used_at) + 1000);
    }),
  );

  test(
    "has ten seconds again if it was handed out after it was seen mapped",
    withApp(async (app) => {
      const region = await app.create(request);
      {
        using _ = lease(region.storage.path);
        await untilSeen(app, region);
      }
      await until("the clock moves on", () => Date.now() > leasedAt(app, region) + 1);
      const { last_used_at } = await app.get(region.id);
      const again = Date.parse(last_used_at) + 10_000;
      await until("it is asked about", async () => Date.parse((await peek(app, region))?.expires_at ?? "") === again);
    }),
  );

  test(
    "by a list has nothing",
    withApp(async (app) => {
      using clock = new Clock();
      const region = await app.create(request);
      clock.advance(9000);
      await untilAsked(app, region);
      expect(await peek(app, region)).toMatchObject({ last_used_at: region.last_used_at });
      clock.advance(1000);
      await untilEnded(app, region);
    }),
  );
});
