/**
 * Hand-offs: a region that lingers 0 ms waits for its consumer once it is sealed. What is asked here in lists is on purpose:
 * they hand nothing out, and so give nothing more time.
 */

import { afterAll, describe, expect, test } from "bun:test";
import { limits } from "../../src/memory/limits.ts";
import type { Region } from "../harness/answers.ts";
import { type TestApp, until, withApp } from "../harness/app.ts";
import { LentApps } from "../harness/lent-app.ts";
import { Clock } from "./support/clock.ts";
import { Hold } from "./support/hold.ts";
import { hold, lease } from "./support/lease.ts";
import { peek, untilAsked, untilEnded, untilSeen } from "./support/linger.ts";
import { claimName, endSession, openSession, takeLease } from "./support/sessions.ts";
import { withTcp } from "./support/socket.ts";

const apps = new LentApps();
afterAll(() => apps.end());

const hourMs = 3_600_000;
const request = { name: "frame", byte_size: 64, linger_ms: 0, handoff_ms: hourMs };

/** A sealed hand-off that waits for an hour. */
async function handOff(app: TestApp, body: object = {}): Promise<Region> {
  const region = await app.create({ ...request, ...body });
  await app.seal(region.id);
  return region;
}

function fetchByName(app: TestApp): Promise<Region> {
  return app.ok<Region>(200, "GET", "/v1/models/default/regions/frame", undefined, { headers: { prefer: "attach" } });
}

/** It waits for whoever was handed it a moment ago. */
function untilFetched(app: TestApp, region: Region): Promise<true> {
  return until("it waits for who fetched it", async () => {
    const end = Date.parse((await peek(app, region))?.expires_at ?? "");
    return end > Date.now() + limits.handOutMs / 2 && end <= Date.now() + limits.handOutMs;
  });
}

/** When the server would end it, in ms since the epoch. */
async function endOf(app: TestApp, region: Region): Promise<number> {
  return Date.parse((await untilAsked(app, region)).expires_at ?? "");
}

describe("a hand-off", () => {
  test(
    "waits a minute for its consumer, or as long as its maker says",
    withApp(async (app) => {
      using clock = new Clock();
      const [one, other] = [
        await app.create({ linger_ms: 0 }),
        await app.create({ linger_ms: 0, handoff_ms: 300_000 }),
      ];
      expect(one.owner).toEqual({ kind: "linger", linger_ms: 0, handoff_ms: limits.handoffDefaultMs });
      expect(other.owner).toMatchObject({ handoff_ms: 300_000 });
      for (const { id } of [one, other]) await app.seal(id);
      clock.advance(59_000);
      expect(await endOf(app, one)).toBeGreaterThanOrEqual(Date.parse(one.created_at) + 60_000);
      clock.advance(1000);
      await untilEnded(app, one);
      expect(await endOf(app, other)).toBeGreaterThanOrEqual(Date.parse(other.created_at) + 300_000);
      clock.advance(240_000);
      await untilEnded(app, other);
    }),
  );

  test(
    "waits from when its maker lets go, however long that maps it",
    withApp(async (app) => {
      using clock = new Clock();
      const region = await app.create({ ...request, handoff_ms: 60_000 });
      {
        using _ = hold(region.storage.path);
        await app.seal(region.id);
        clock.advance(hourMs);
        await untilSeen(app, region);
        expect(await app.get(region.id)).toMatchObject({ in_use: true, state: "sealed" });
      }
      clock.advance(59_000);
      await untilAsked(app, region);
      clock.advance(limits.handOutMs);
      await untilEnded(app, region);
    }),
  );

  test(
    "ends a second after a consumer's lock was seen to go, though its maker maps it still",
    apps.with(async (app) => {
      const region = await app.create(request);
      using _ = hold(region.storage.path);
      await app.seal(region.id);
      {
        using _ = lease(region.storage.path);
        await untilSeen(app, region);
        expect(await endOf(app, region)).toBeLessThan(Date.now() + hourMs / 2);
      }
      await until("its name is free", async () => (await peek(app, region))?.name !== "frame");
      expect(await peek(app, region)).toMatchObject({ state: "draining" });
    }),
  );

  test(
    "is not taken for consumed when a maker without a byte of its own lets go",
    withApp(async (app) => {
      const region = await app.create(request);
      {
        using _ = lease(region.storage.path);
        await app.seal(region.id);
        await untilSeen(app, region);
      }
      expect(await endOf(app, region)).toBeGreaterThan(Date.now() + hourMs / 2);
      await until("the lock is seen to be free", () => app.store.books.region(region.id).handOff?.isTelling);
      {
        using _ = lease(region.storage.path);
        await untilSeen(app, region);
      }
      await untilEnded(app, region);
    }),
  );

  test(
    "is not handed off before its seal: who maps it may come and go",
    apps.with(async (app) => {
      const region = await app.create(request);
      using _ = hold(region.storage.path);
      {
        using _ = lease(region.storage.path);
        await untilSeen(app, region);
      }
      await fetchByName(app);
      expect(await endOf(app, region)).toBeGreaterThan(Date.now() + hourMs / 2);
    }),
  );

  test(
    "that is open ends with the session that builds it, and once it is sealed it does not",
    apps.with(async (app) => {
      const session = await openSession(app);
      const open = await app.create({ ...request, name: "open", session: session.id });
      const sealed = await handOff(app, { session: session.id });
      expect(open).toMatchObject({ session: session.id, owner: { kind: "linger", linger_ms: 0 } });
      expect(await peek(app, sealed)).toMatchObject({ session: null });
      expect(await endSession(app, session)).toMatchObject({ regions: 1 });
      expect(await peek(app, open)).toBeUndefined();
      expect(await peek(app, sealed)).toMatchObject({ state: "sealed" });
      await app.refused("session-not-found", "POST", "/v1/regions", { ...request, session: session.id });
    }),
  );

  test(
    "may be made of another region, and its wait changed, by PATCH; without linger_ms there is none",
    apps.with(async (app) => {
      const { id } = await app.create({ ttl_ms: 60_000 });
      await app.ok(200, "PATCH", `/v1/regions/${id}`, { linger_ms: 0, handoff_ms: 120_000 });
      expect((await app.get(id)).owner).toEqual({ kind: "linger", linger_ms: 0, handoff_ms: 120_000 });
      await app.refused("validation-failed", "PATCH", `/v1/regions/${id}`, { handoff_ms: 120_000 });
      await app.refused("validation-failed", "POST", "/v1/regions", { byte_size: 1, ttl_ms: 1000, handoff_ms: 1 });
    }),
  );

  test(
    "that a PATCH has made of a sealed region is consumed like any other",
    apps.with(async (app) => {
      const region = await app.create({ ttl_ms: hourMs });
      await app.seal(region.id);
      await app.ok(200, "PATCH", `/v1/regions/${region.id}`, { linger_ms: 0, handoff_ms: hourMs });
      {
        using _ = lease(region.storage.path);
        await untilSeen(app, region);
      }
      await untilEnded(app, region);
    }),
  );
});

describe("a hand-off whose consumer's client reports", () => {
  for (const maker of [false, undefined]) {
    const says = maker === undefined ? "knows of no makers" : "says that it is none of the maker's";
    test(
      `ends when it lets go, however short it mapped it and though its maker maps it still: it ${says}`,
      withTcp(async ({ app, url }) => {
        const region = await app.create(request);
        {
          using _ = hold(region.storage.path);
          await app.seal(region.id);
          await fetchByName(app);
          using consumer = await Hold.open(url, await openSession(app));
          consumer.send({ attach: region.id, writable: false, ...(maker === undefined ? {} : { maker }) });
          consumer.send({ detach: region.id, ...(maker === undefined ? {} : { maker }) });
          await until("it drains", async () => (await peek(app, region))?.state === "draining");
        }
        await untilEnded(app, region);
      }),
    );
  }

  test(
    "stays while another consumer maps it, or is about to",
    withTcp(async ({ app, url }) => {
      const region = await handOff(app);
      using one = await Hold.open(url, await openSession(app));
      using other = await Hold.open(url, await openSession(app));
      one.send({ attach: region.id, maker: false });
      other.send({ attach: region.id, maker: false });
      await until("both map it", () => app.store.holders.consumersOf(app.store.books.region(region.id)) === 2);
      await fetchByName(app);
      one.send({ detach: region.id, maker: false });
      other.send({ detach: region.id, maker: false });
      await until("nobody maps it", () => app.store.holders.consumersOf(app.store.books.region(region.id)) === 0);
      await untilFetched(app, region);
      one.send({ attach: region.id, maker: false });
      one.send({ detach: region.id, maker: false });
      await untilEnded(app, region);
    }),
  );

  test(
    "stays while a lock says that somebody maps it, and ends when that goes",
    withTcp(async ({ app, url }) => {
      const region = await handOff(app);
      using consumer = await Hold.open(url, await openSession(app));
      {
        using _ = lease(region.storage.path);
        consumer.send({ attach: region.id, maker: false });
        consumer.send({ detach: region.id, maker: false });
        await until("it is let go", () => app.store.books.region(region.id).handOff?.isLetGo);
        expect(await peek(app, region)).toMatchObject({ state: "sealed" });
      }
      await untilEnded(app, region);
    }),
  );

  test(
    "ends when the process ends that mapped it",
    withTcp(async ({ app, url }) => {
      const region = await handOff(app);
      {
        using consumer = await Hold.open(url, await openSession(app));
        consumer.send({ attach: region.id, maker: false });
        await until("it is told", () => app.store.holders.consumersOf(app.store.books.region(region.id)) === 1);
      }
      await untilEnded(app, region);
    }),
  );

  test(
    "is not ended by its maker's reports, nor by those of a maker's client that knows of no makers",
    withTcp(async ({ app, url }) => {
      const region = await app.create(request);
      using maker = await Hold.open(url, await openSession(app));
      const old = await app.create({ ...request, name: "old" });
      {
        using _ = hold(region.storage.path);
        using __ = lease(old.storage.path);
        maker.send({ attach: region.id, writable: true, maker: true });
        maker.send({ attach: old.id, writable: true });
        await until("both are told", async () => (await app.get(old.id)).holders.length === 1);
        for (const { id } of [region, old]) await app.seal(id);
      }
      await until("the lock is seen to be free", () => app.store.books.region(old.id).handOff?.isTelling);
      maker.send({ detach: region.id, maker: true });
      maker.send({ detach: old.id });
      await until("both are told", async () => (await app.get(old.id)).holders.length === 0);
      for (const each of [region, old]) {
        expect(await endOf(app, each)).toBeGreaterThan(Date.now() + hourMs / 2);
      }
    }),
  );
});

describe("who fetches a hand-off to map it", () => {
  const ways: readonly (readonly [string, (app: TestApp, region: Region) => Promise<unknown>])[] = [
    ["a GET by name that prefers to attach", fetchByName],
    ["an attach", (app) => app.ok(200, "POST", "/v1/regions", { ...request, if_exists: "attach" })],
    [
      "a claim",
      async (app) => {
        const session = await openSession(app);
        return app.ok(200, "POST", "/v1/models/default/regions/frame/claim", { session: session.id });
      },
    ],
  ];

  for (const [what, fetch] of ways) {
    test(
      `by ${what} has ten seconds; if nobody maps it by then, it ends`,
      withApp(async (app) => {
        using clock = new Clock();
        const region = await handOff(app);
        clock.advance(9000);
        await fetch(app, region);
        await untilFetched(app, region);
        clock.advance(limits.handOutMs);
        await untilEnded(app, region);
      }),
    );
  }

  test(
    "has them also after another consumer was seen to let go",
    apps.with(async (app) => {
      const region = await handOff(app);
      {
        using _ = lease(region.storage.path);
        await untilSeen(app, region);
      }
      await fetchByName(app);
      await untilFetched(app, region);
    }),
  );
});

describe("who looks at a hand-off", () => {
  const looks: readonly (readonly [string, (app: TestApp, region: Region) => Promise<unknown>])[] = [
    ["a GET by id", (app, { id }) => app.get(id)],
    ["a GET by name", (app) => app.ok(200, "GET", "/v1/models/default/regions/frame")],
    ["a list", (app) => app.ok(200, "GET", "/v1/regions?name=frame")],
  ];

  for (const [what, look] of looks) {
    test(
      `by ${what} does not consume it, nor keep it for longer than ten seconds more`,
      withApp(async (app) => {
        using clock = new Clock();
        const region = await handOff(app);
        await look(app, region);
        clock.advance(limits.handOutMs);
        expect(await endOf(app, region)).toBeGreaterThan(Date.now() + hourMs / 2);
        clock.advance(hourMs - limits.handOutMs);
        await look(app, region).catch(() => undefined);
        clock.advance(limits.handOutMs);
        await untilEnded(app, region);
      }),
    );
  }

  test(
    "and maps it without a word has ten seconds, since that is how a client fetches that knows nothing better",
    withApp(async (app) => {
      using clock = new Clock();
      const region = await handOff(app, { handoff_ms: 0 });
      expect(await endOf(app, region)).toBeGreaterThanOrEqual(Date.parse(region.created_at) + limits.handOutMs);
      clock.advance(limits.handOutMs);
      await untilEnded(app, region);
    }),
  );
});

test(
  "a lease by request consumes a hand-off, and keeps it as a mapping does",
  withApp(async (app) => {
    using clock = new Clock();
    const region = await handOff(app);
    const { id } = await takeLease(app, region.id, { ttl_ms: limits.sessionTtlMaxMs });
    clock.advance(2 * hourMs);
    await untilSeen(app, region);
    await app.ok(200, "DELETE", `/v1/leases/${id}`);
    await untilEnded(app, region);
  }),
);

test(
  "a builder of a hand-off under a claim, which uses it as well, keeps it with the lease byte",
  apps.with(async (app) => {
    const session = await openSession(app);
    const claim = await claimName(app, session);
    const region = await app.create({ ...request, name: "weights", claim: claim.claim ?? "" });
    using _ = hold(region.storage.path);
    {
      using _ = lease(region.storage.path);
      await app.seal(region.id);
      await untilSeen(app, region);
    }
    await until("its name is free", async () => (await peek(app, region))?.name !== "weights");
  }),
);
