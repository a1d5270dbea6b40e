/** Sessions: how they are opened, found, renewed and ended, and that what they own ends with them. */

import { describe, expect, test } from "bun:test";
import { existsSync, readlinkSync } from "node:fs";
import { TensordError } from "../../src/memory/error.ts";
import { limits, MiB } from "../../src/memory/limits.ts";
import { holdSession } from "../../src/memory/sessions/sessions.ts";
import { hostOf } from "../../src/server/cli/pools.ts";
import { TestApp, toCharge, until, withApp } from "../harness/app.ts";
import { lease } from "./support/lease.ts";
import { idInState } from "./support/region-failures.ts";
import {
  claimName,
  endSession,
  getSession,
  openSession,
  type Session,
  type SessionList,
  shortestTtlMs,
  shortTtlMs,
  takeLease,
  untilGone,
  untilState,
} from "./support/sessions.ts";

const charge = 2 * toCharge(64);

describe("a new session", () => {
  test(
    "says what it was asked for, and has defaults for the rest",
    withApp(async (app) => {
      const client = { name: "trainer", pid: 4711, hostname: "node-1", version: "1.2", labels: { rank: "0" } };
      const before = Date.now();
      const session = await openSession(app, { name: "first", client, quota_bytes: MiB, ttl_ms: 60_000 });
      expect(session).toMatchObject({ name: "first", client, quota_bytes: MiB, ttl_ms: 60_000, held: false });
      expect(session).toMatchObject({ id: expect.stringMatching(/^ses_[a-z2-7]{26}$/), used_bytes: 0, regions: 0 });
      expect(Date.parse(session.expires_at ?? "")).toBeWithin(before + 60_000, Date.now() + 60_001);
      const plain = await openSession(app, { client: {}, ttl_ms: undefined });
      expect(plain).toMatchObject({ name: null, quota_bytes: null, ttl_ms: 30_000 });
      const unsaid = { name: null, pid: null, pid_namespace: null, namespace_pid: null, hostname: null, version: null };
      expect(plain.client).toEqual({ ...unsaid, labels: {} });
      expect((await openSession(app)).client).toBeNull();
    }),
  );

  test(
    "tells the pid of a client in another PID namespace apart from the pids here",
    withApp(async (app) => {
      const own = readlinkSync("/proc/self/ns/pid");
      const pidOf = async (client: object) => {
        const { client: told } = await openSession(app, { client: { pid: 7, ...client } });
        return [told?.pid, told?.pid_namespace, told?.namespace_pid];
      };
      expect(await pidOf({})).toEqual([7, null, null]);
      expect(await pidOf({ pid_namespace: own })).toEqual([7, null, null]);
      expect(await pidOf({ pid_namespace: "pid:[1]" })).toEqual([null, "pid:[1]", 7]);
      for (const namespace of ["pid:[]", "/etc/passwd", "pid:[1]\u001b[2J"]) {
        const client = { pid: 7, pid_namespace: namespace };
        await app.refused("validation-failed", "POST", "/v1/sessions", { client });
      }
    }),
  );

  test(
    "is where its Location says, and counted",
    withApp(async (app) => {
      const { headers, body } = await app.request("POST", "/v1/sessions", {});
      const { id } = body as Session;
      expect(headers.get("location")).toBe(`/v1/sessions/${id}`);
      expect(await app.ok<Session>(200, "GET", headers.get("location") ?? "")).toEqual(body as Session);
      expect(await app.stats()).toMatchObject({ sessions: 1, claims: 0, leases: 0 });
    }),
  );

  test(
    "may ask for each TTL between the shortest and the longest",
    withApp(async (app) => {
      for (const ttl_ms of [1000, 86_400_000]) expect(await openSession(app, { ttl_ms })).toMatchObject({ ttl_ms });
      for (const ttl_ms of [999, 86_400_001]) {
        await app.refused("validation-failed", "POST", "/v1/sessions", { ttl_ms });
      }
    }),
  );
});

test(
  "sessions are listed in the order of their opening, page by page",
  withApp(async (app) => {
    const ids: string[] = [];
    for (let index = 0; index < 5; index++) ids.push((await openSession(app, { name: `${index}` })).id);
    const found: string[] = [];
    for (let cursor: string | null = "0"; cursor !== null; ) {
      const page: SessionList = await app.ok(200, "GET", `/v1/sessions?limit=2&cursor=${cursor}`);
      expect(page.items.length).toBeLessThanOrEqual(2);
      found.push(...page.items.map(({ id }) => id));
      cursor = page.next_cursor;
    }
    expect(found).toEqual(ids);
    await endSession(app, { id: ids[1] } as Session);
    const { items } = await app.ok<SessionList>(200, "GET", "/v1/sessions");
    expect(items.map(({ name }) => name)).toEqual(["0", "2", "3", "4"]);
  }),
);

describe("a region of a session", () => {
  test(
    "says so, and is what the session uses until it is freed",
    withApp(async (app) => {
      const session = await openSession(app);
      const region = await app.create({ session: session.id });
      expect(region).toMatchObject({ owner: { kind: "session", session: session.id }, session: session.id });
      expect(region.expires_at).toBeNull();
      expect(await getSession(app, session)).toMatchObject({ used_bytes: charge, regions: 1 });
      await app.seal(region.id);
      expect(await app.get(region.id)).toMatchObject({ session: session.id });
      expect(await getSession(app, session)).toMatchObject({ used_bytes: charge, regions: 1 });
      await app.remove(region.id);
      expect(await getSession(app, session)).toMatchObject({ used_bytes: 0, regions: 0 });
    }),
  );

  test(
    "is no longer the session's when it drains, or when it was given another owner",
    withApp(async (app) => {
      const session = await openSession(app);
      const drains = await app.create({ session: session.id });
      const changes = await app.create({ session: session.id });
      await app.seal(changes.id);
      using _ = lease(drains.storage.path);
      expect((await app.remove(drains.id)).state).toBe("draining");
      expect(await getSession(app, session)).toMatchObject({ used_bytes: charge, regions: 1 });
      await app.ok(200, "PATCH", `/v1/regions/${changes.id}`, { ttl_ms: 60_000 });
      expect(await getSession(app, session)).toMatchObject({ used_bytes: 0, regions: 0 });
      await endSession(app, session);
      expect(await app.get(changes.id)).toMatchObject({ state: "sealed", session: null, owner: { kind: "ttl" } });
    }),
  );
});

describe("the end of a session by request", () => {
  test(
    "deletes its regions, open and sealed, and says what that freed",
    withApp(async (app) => {
      const before = app.footprint();
      const session = await openSession(app);
      const other = await openSession(app);
      const kept = await app.create({ session: other.id });
      await app.create({ name: "open", session: session.id });
      await app.seal((await app.create({ name: "sealed", session: session.id })).id);
      expect(await endSession(app, session)).toEqual({ state: "deleted", freed_bytes: 2 * charge, regions: 2 });
      await app.refused("session-not-found", "GET", `/v1/sessions/${session.id}`);
      await app.refused("session-not-found", "DELETE", `/v1/sessions/${session.id}`);
      await app.refused("session-not-found", "POST", `/v1/sessions/${session.id}/renew`);
      expect((await app.get(kept.id)).state).toBe("open");
      await endSession(app, other);
      expect(app.footprint()).toEqual(before);
    }),
  );

  test(
    "leaves a sealed region that is still leased its name, and the region goes with its last lease",
    withApp(async (app) => {
      const session = await openSession(app);
      const { id, storage } = await app.create({ name: "weights", session: session.id });
      await app.seal(id);
      {
        using _ = lease(storage.path);
        expect(await endSession(app, session)).toEqual({ state: "draining", freed_bytes: 0, regions: 1 });
        expect(await app.get(id)).toMatchObject({ state: "sealed", name: "weights", session: null });
        await app.refused("name-taken", "POST", "/v1/regions", { name: "weights", byte_size: 1, ttl_ms: 1000 });
      }
      await untilGone(app, `/v1/regions/${id}`);
      expect(existsSync(storage.path)).toBeFalse();
    }),
  );

  test(
    "takes the name of an open region at once, and its bytes go with its last lease",
    withApp(async (app) => {
      const session = await openSession(app);
      const { id, storage } = await app.create({ name: "weights", session: session.id });
      {
        using _ = lease(storage.path);
        expect(await endSession(app, session)).toEqual({ state: "draining", freed_bytes: 0, regions: 1 });
        expect(await app.get(id)).toMatchObject({ state: "draining", name: null, drain: { reason: "session" } });
        await app.create({ name: "weights" });
      }
      await untilGone(app, `/v1/regions/${id}`);
    }),
  );

  test(
    "cancels the creation that is under way",
    withApp(async (app) => {
      const session = await openSession(app);
      const body = { byte_size: 192 * MiB, session: session.id };
      const creation = app.request("POST", "/v1/regions", body);
      await idInState(app, "creating");
      expect(await endSession(app, session)).toMatchObject({ state: "deleted", regions: 1 });
      expect((await creation).body).toMatchObject({ code: "cancelled" });
      expect(hostOf(await app.stats())).toMatchObject({ used_bytes: 0, draining_bytes: 0 });
    }),
  );

  test(
    "ends its claims and its leases",
    withApp(async (app) => {
      const session = await openSession(app);
      const { id, storage } = await app.create();
      await claimName(app, session);
      const taken = await takeLease(app, id, { ttl_ms: 60_000, session: session.id });
      expect(await app.stats()).toMatchObject({ sessions: 1, claims: 1, leases: 1 });
      await endSession(app, session);
      expect(await app.stats()).toMatchObject({ sessions: 0, claims: 0, leases: 0 });
      await app.refused("lease-not-found", "DELETE", `/v1/leases/${taken.id}`);
      expect(await app.remove(id)).toMatchObject({ state: "deleted" });
      expect(existsSync(storage.path)).toBeFalse();
    }),
  );

  test(
    "ends more regions than go in one turn",
    withApp(async (app) => {
      const session = await openSession(app);
      const count = 3 * limits.sessionEndSlice;
      for (let index = 0; index < count; index++) await app.create({ byte_size: 0, session: session.id });
      expect(await endSession(app, session)).toMatchObject({ state: "deleted", regions: count });
      expect(hostOf(await app.stats())).toMatchObject({ used_bytes: 0, draining_bytes: 0 });
    }),
  );

  for (const step of ["session.end-begun", "session.region-ended", "session.row-deleted"] as const) {
    let failures = 0;
    const onStep = (reached: string) => {
      if (reached !== step || failures > 0) return;
      failures += 1;
      throw new TensordError("out-of-shared-memory", "Cannot write to the journal: it is full", { hint: "Free some." });
    };
    test(
      `that fails at ${step} is tried again by the server itself`,
      withApp(
        async (app) => {
          const session = await openSession(app, { ttl_ms: limits.sessionTtlMaxMs });
          await app.create({ session: session.id });
          const { body } = await app.request("DELETE", `/v1/sessions/${session.id}`);
          expect(body).toMatchObject({ code: "out-of-shared-memory" });
          expect(await getSession(app, session)).toMatchObject({ id: session.id });
          await untilGone(app, `/v1/sessions/${session.id}`);
          await until("its memory is free", async () => {
            const { used_bytes, draining_bytes } = hostOf(await app.stats());
            return used_bytes + draining_bytes === 0;
          });
        },
        { onStep },
      ),
    );
  }
});

describe("a session's TTL", () => {
  test(
    "ends it, and what it owns, when nobody renews it",
    withApp(async (app) => {
      const session = await openSession(app, { ttl_ms: shortestTtlMs });
      const region = await app.create({ name: "weights", session: session.id });
      await untilGone(app, `/v1/sessions/${session.id}`);
      expect(Date.now()).toBeGreaterThanOrEqual(Date.parse(session.expires_at ?? ""));
      await untilGone(app, `/v1/regions/${region.id}`);
      expect(hostOf(await app.stats())).toMatchObject({ used_bytes: 0, draining_bytes: 0 });
    }),
  );

  test(
    "begins anew with each renewal",
    withApp(async (app) => {
      const renewed = await openSession(app, { ttl_ms: shortTtlMs });
      const witness = await openSession(app, { ttl_ms: shortTtlMs });
      const region = await app.create({ session: renewed.id });
      await until("some of it is over", () => Date.now() > Date.parse(renewed.created_at) + shortTtlMs / 4);
      const after = await app.ok<Session>(200, "POST", `/v1/sessions/${renewed.id}/renew`);
      expect(Date.parse(after.expires_at ?? "")).toBeGreaterThan(Date.parse(renewed.expires_at ?? "") + 400);
      await untilGone(app, `/v1/sessions/${witness.id}`);
      expect(await getSession(app, renewed)).toMatchObject({ expires_at: after.expires_at, regions: 1 });
      expect((await app.get(region.id)).state).toBe("open");
      await untilGone(app, `/v1/sessions/${renewed.id}`);
    }),
  );

  test(
    "of many sessions ends for each of them",
    withApp(async (app) => {
      await Promise.all(Array.from({ length: 700 }, () => openSession(app, { ttl_ms: 2 * shortTtlMs })));
      expect((await app.stats()).sessions).toBe(700);
      await until("all are gone", async () => (await app.stats()).sessions === 0);
    }),
  );
});

test(
  "a session's name and client are what errors call it by",
  withApp(async (app) => {
    const cases = [
      [{ name: "first", client: { name: "trainer", pid: 7 } }, "(first)"],
      [{ client: { name: "trainer", pid: 7 } }, "(trainer, pid 7)"],
      [{ client: { pid: 7 } }, "(pid 7)"],
      [{}, ": 0 of its"],
    ] as const;
    for (const [body, words] of cases) {
      const session = await openSession(app, { ...body, quota_bytes: 0 });
      const { detail } = await app.refused("session-quota-exceeded", "POST", "/v1/regions", toRegion(session));
      expect(detail).toContain(`${session.id}${words.startsWith("(") ? " " : ""}${words}`);
    }
  }),
);

function toRegion({ id }: Session): object {
  return { byte_size: 1, session: id };
}

test(
  "a region whose session has ended is drained by it and by nobody else",
  withApp(async (app: TestApp) => {
    const session = await openSession(app);
    const { id, storage } = await app.create({ session: session.id });
    using _ = lease(storage.path);
    const [first, second] = await Promise.all([
      app.request("DELETE", `/v1/sessions/${session.id}`),
      app.request("DELETE", `/v1/sessions/${session.id}`),
    ]);
    expect([first.status, second.status].toSorted()).toEqual([200, 404]);
    expect((await untilState(app, id, "draining")).drain).toEqual({ reason: "session", waits_for: "lease" });
  }),
);

test("an end of a session that is under way when the server stops is no trouble to tell of: the next start goes on with it", async () => {
  let closing: Promise<void> | undefined;
  const app: TestApp = await TestApp.open({
    onStep: (step) => {
      if (step === "session.region-ended") closing ??= app.close();
    },
  });
  const { id } = await openSession(app);
  for (let count = 0; count < 20; count++) await app.create({ byte_size: 64, session: id });
  const session = app.store.books.session(id);
  const release = holdSession(app.store, session);
  release("peer");
  // It meets what is closed, unless it is the faster one.
  await Promise.allSettled([session.end]);
  await closing;
  expect(app.warnings).toEqual([]);
});
