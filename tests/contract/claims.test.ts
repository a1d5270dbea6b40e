/** Claims: of N workers that want a name, one builds and the others get what it built; if it dies, the next one builds. */

import { afterAll, describe, expect, test } from "bun:test";
import type { Region } from "../harness/answers.ts";
import { type TestApp, withApp } from "../harness/app.ts";
import { LentApps } from "../harness/lent-app.ts";
import { idInState, slowBytes } from "./support/region-failures.ts";
import {
  type Claim,
  claimName,
  claimPath,
  endSession,
  openSession,
  type Session,
  shortTtlMs,
  untilGone,
  watchWaits,
} from "./support/sessions.ts";

const apps = new LentApps();
afterAll(() => apps.end());

/** What the builder makes: it lingers, since its readers come later. */
async function build(app: TestApp, claim: string | null, body: object = {}): Promise<Region> {
  return app.create({ name: "weights", linger_ms: 600_000, claim, ...body });
}

describe("a free name", () => {
  test(
    "makes the first who asks its builder, and the others readers without a region",
    withApp(async (app) => {
      const first = await openSession(app);
      const claim = await claimName(app, first);
      expect(claim).toEqual({ role: "builder", claim: expect.stringMatching(/^clm_[a-z2-7]{26}$/), region: null });
      for (const session of [await openSession(app), first]) {
        expect(await claimName(app, session)).toEqual({ role: "reader", claim: null, region: null });
      }
      expect(await app.stats()).toMatchObject({ claims: 1 });
    }),
  );

  test(
    "is claimed in its model only",
    apps.with(async (app) => {
      const session = await openSession(app);
      await app.register("llama");
      await claimName(app, session);
      const other = await app.ok<Claim>(200, "POST", claimPath.replace("default", "llama"), { session: session.id });
      expect(other.role).toBe("builder");
    }),
  );
});

describe("the same key", () => {
  test(
    "of the same session gets the same claim again, as often as it asks",
    apps.with(async (app) => {
      const session = await openSession(app);
      const first = await claimName(app, session, { key: "a" });
      expect(first.role).toBe("builder");
      expect(await claimName(app, session, { key: "a" })).toEqual(first);
      const { id } = await build(app, first.claim);
      expect(await claimName(app, session, { key: "a" })).toEqual(first);
      await app.seal(id);
      expect(await claimName(app, session, { key: "a" })).toMatchObject({ role: "reader", region: { id } });
    }),
  );

  test(
    "of another session, another key and no key get nothing",
    apps.with(async (app) => {
      const session = await openSession(app);
      await claimName(app, session, { key: "a" });
      expect((await claimName(app, await openSession(app), { key: "a" })).role).toBe("reader");
      expect((await claimName(app, session, { key: "b" })).role).toBe("reader");
      expect((await claimName(app, session)).role).toBe("reader");
    }),
  );
});

describe("a reader", () => {
  test(
    "gets the sealed region, whoever made it",
    apps.with(async (app) => {
      const { id } = await app.create({ name: "weights" });
      await app.seal(id);
      const { role, claim, region } = await claimName(app, await openSession(app));
      expect({ role, claim }).toEqual({ role: "reader", claim: null });
      expect(region).toMatchObject({ id, state: "sealed", in_use: false, leases: 0 });
    }),
  );

  test(
    "gets the unsealed region when its time is over, which says: ask again",
    apps.with(async (app) => {
      const { claim } = await claimName(app, await openSession(app));
      const { id } = await build(app, claim);
      const session = await openSession(app);
      expect(await claimName(app, session)).toMatchObject({ role: "reader", region: { id, state: "open" } });
      const begun = performance.now();
      expect(await claimName(app, session, { wait: 1 })).toMatchObject({ role: "reader", region: { state: "open" } });
      expect(performance.now() - begun).toBeGreaterThan(900);
    }),
  );

  test(
    "that waits is told of the wait, and gets the region when it is sealed",
    apps.with(async (app) => {
      const untilWaiting = watchWaits(app);
      const { claim } = await claimName(app, await openSession(app));
      const waiting = Array.from({ length: 7 }, async () => {
        const { id: session } = await openSession(app);
        return app.request("POST", claimPath, { session }, { headers: { prefer: "wait=60" } });
      });
      await untilWaiting(7);
      const { id } = await build(app, claim);
      await app.seal(id);
      for (const { headers, body } of await Promise.all(waiting)) {
        expect(headers.get("preference-applied")).toBe("wait=60");
        expect(body).toMatchObject({ role: "reader", claim: null, region: { id, state: "sealed" } });
      }
    }),
  );

  test(
    "that goes away waits no longer",
    apps.with(async (app) => {
      const untilWaiting = watchWaits(app);
      await claimName(app, await openSession(app));
      const { id: session } = await openSession(app);
      const abort = new AbortController();
      const options = { headers: { prefer: "wait=60" }, signal: abort.signal };
      const gone = app.request("POST", claimPath, { session }, options).catch(() => {});
      await untilWaiting(1);
      abort.abort();
      await untilWaiting(0);
      await gone;
    }),
  );
});

describe("the next in line builds", () => {
  const ways: readonly (readonly [
    string,
    (app: TestApp, builder: Session, claim: string | null) => Promise<unknown>,
  ])[] = [
    ["the builder's session is ended", (app, builder) => endSession(app, builder)],
    ["its TTL is over", (app, builder) => untilGone(app, `/v1/sessions/${builder.id}`)],
    ["it releases its claim", (app, _, claim) => app.ok(200, "DELETE", `${claimPath}?claim=${claim}`)],
  ];
  for (const [what, end] of ways) {
    test(
      `when ${what}, one of those who wait, and in the order in which they came`,
      apps.with(async (app) => {
        const untilWaiting = watchWaits(app);
        const builder = await openSession(app, { ttl_ms: shortTtlMs });
        const { claim } = await claimName(app, builder);
        const second = claimName(app, await openSession(app), { wait: 60 });
        await untilWaiting(1);
        const third = claimName(app, await openSession(app), { wait: 60 });
        await untilWaiting(2);
        await end(app, builder, claim);
        const next = await second;
        expect(next).toMatchObject({ role: "builder", region: null });
        expect(next.claim).not.toBe(claim);
        await untilWaiting(1);
        const { id } = await build(app, next.claim);
        await app.seal(id);
        expect(await third).toMatchObject({ role: "reader", region: { id } });
      }),
    );
  }

  test(
    "also when the builder dies in the middle of its work, twice",
    apps.with(async (app) => {
      const untilWaiting = watchWaits(app);
      let { claim, session } = await toBuilder(app);
      for (let deaths = 0; deaths < 2; deaths++) {
        const unfinished = await build(app, claim);
        const waiting = toBuilder(app, 60);
        await untilWaiting(1);
        await endSession(app, session);
        await app.refused("region-not-found", "GET", `/v1/regions/${unfinished.id}`);
        ({ claim, session } = await waiting);
      }
      const { id } = await build(app, claim);
      await app.seal(id);
      expect((await app.get(id)).session).toBeNull();
      await endSession(app, session);
      expect(await app.get(id)).toMatchObject({ state: "sealed", name: "weights" });
    }),
  );

  test(
    "when what was sealed is deleted",
    apps.with(async (app) => {
      const { id } = await app.create({ name: "weights" });
      await app.seal(id);
      const session = await openSession(app);
      expect((await claimName(app, session)).role).toBe("reader");
      await app.remove(id);
      expect((await claimName(app, session)).role).toBe("builder");
    }),
  );

  async function toBuilder(app: TestApp, wait?: number) {
    const session = await openSession(app);
    const { role, claim } = await claimName(app, session, wait === undefined ? {} : { wait });
    expect(role).toBe("builder");
    return { session, claim };
  }
});

test(
  "a claim that waits while somebody creates the name builds as soon as that creation is deleted",
  apps.with(async (app) => {
    const untilWaiting = watchWaits(app);
    const creation = app.request("POST", "/v1/regions", { name: "weights", byte_size: slowBytes, ttl_ms: 600_000 });
    const id = await idInState(app, "creating");
    const next = claimName(app, await openSession(app), { wait: 60 });
    await untilWaiting(1);
    await app.remove(id);
    expect(await next).toMatchObject({ role: "builder" });
    expect((await creation).body).toMatchObject({ code: "cancelled" });
  }),
);

describe("a region under a claim", () => {
  test(
    "is paid for by the builder's session and dies with it, whatever its owner, until it is sealed",
    apps.with(async (app) => {
      for (const owner of [{ ttl_ms: 600_000 }, { linger_ms: 600_000 }, { persist: true }]) {
        const session = await openSession(app);
        const { claim } = await claimName(app, session);
        const { id, storage } = await app.create({ name: "weights", claim, ...owner });
        expect((await app.get(id)).session).toBe(session.id);
        const paid = await app.ok<Session>(200, "GET", `/v1/sessions/${session.id}`);
        expect(paid).toMatchObject({ regions: 1, used_bytes: storage.byte_size + (4096 - (storage.byte_size % 4096)) });
        expect(await endSession(app, session)).toMatchObject({ state: "deleted", regions: 1 });
        await app.refused("region-not-found", "GET", `/v1/regions/${id}`);
      }
    }),
  );

  test(
    "belongs to its owner alone once it is sealed, and the claim is over",
    withApp(async (app) => {
      const session = await openSession(app);
      const { claim } = await claimName(app, session);
      const { id } = await build(app, claim);
      await app.seal(id);
      expect(await app.get(id)).toMatchObject({ session: null, owner: { kind: "linger" } });
      expect(await app.stats()).toMatchObject({ claims: 0 });
      const paid = await app.ok<Session>(200, "GET", `/v1/sessions/${session.id}`);
      expect(paid).toMatchObject({ regions: 0, used_bytes: 0 });
      await app.refused("claim-not-found", "DELETE", `${claimPath}?claim=${claim}`);
    }),
  );

  test(
    "may be made again under the same claim after it was deleted",
    apps.with(async (app) => {
      const { claim } = await claimName(app, await openSession(app));
      await app.remove((await build(app, claim)).id);
      await app.refused("name-claimed", "POST", "/v1/regions", { name: "weights", byte_size: 1, ttl_ms: 1000 });
      await app.seal((await build(app, claim)).id);
    }),
  );
});

describe("without the claim", () => {
  test(
    "nobody creates the name, under whatever if_exists, and the refusal says who builds",
    apps.with(async (app) => {
      const session = await openSession(app, { name: "trainer" });
      await claimName(app, session);
      for (const if_exists of ["fail", "attach", "replace"]) {
        const body = { name: "weights", byte_size: 1, session: session.id, if_exists };
        const problem = await app.refused("name-claimed", "POST", "/v1/regions", body);
        expect(problem.detail).toContain(`${session.id} (trainer)`);
      }
      await app.create({ name: "other" });
      await app.create({});
    }),
  );

  test(
    "nor with the claim of another name, or one that is released",
    apps.with(async (app) => {
      const session = await openSession(app);
      const other = await app.ok<Claim>(200, "POST", claimPath.replace("weights", "other"), { session: session.id });
      const { claim } = await claimName(app, session);
      const create = (id: string | null) => ({ name: "weights", byte_size: 1, ttl_ms: 1000, claim: id });
      await app.refused("claim-not-found", "POST", "/v1/regions", create(other.claim));
      await app.ok(200, "DELETE", `${claimPath}?claim=${claim}`);
      await app.refused("claim-not-found", "POST", "/v1/regions", create(claim));
      await app.refused("claim-not-found", "DELETE", `${claimPath}?claim=${claim}`);
      await app.create({ name: "weights" });
    }),
  );
});

test(
  "a claim whose session ends while it waits in line is refused, and the next one builds",
  apps.with(async (app) => {
    const untilWaiting = watchWaits(app);
    const builder = await openSession(app);
    await claimName(app, builder);
    const session = await openSession(app);
    const waits = app.request("POST", claimPath, { session: session.id }, { headers: { prefer: "wait=60" } });
    await untilWaiting(1);
    const next = claimName(app, await openSession(app), { wait: 60 });
    await untilWaiting(2);
    await endSession(app, session);
    await endSession(app, builder);
    expect((await waits).body).toMatchObject({ code: "session-not-found" });
    expect(await next).toMatchObject({ role: "builder" });
  }),
);
