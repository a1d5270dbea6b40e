/** Quotas of sessions, models and the server: what counts, what is refused, and the numbers that a refusal carries. */

import { afterAll, describe, expect, test } from "bun:test";
import { MiB } from "../../src/memory/limits.ts";
import type { Problem } from "../harness/answers.ts";
import { withApp } from "../harness/app.ts";
import { LentApps } from "../harness/lent-app.ts";
import { lease } from "./support/lease.ts";
import { claimName, endSession, openSession, type Session } from "./support/sessions.ts";

const apps = new LentApps();
afterAll(() => apps.end());

/** A page of header and a page of data. */
const charge = 8192;
const poolBytes = 16 * MiB;

interface Holder {
  readonly session: string;
  readonly used_bytes: number;
}

const holdersOf = (problem: Problem) => problem.holders as readonly Holder[];

describe("a session's quota", () => {
  test(
    "holds to the byte, and says how much is asked and free, and who holds it",
    apps.with(async (app) => {
      const session = await openSession(app, { name: "trainer", quota_bytes: 2 * charge });
      const request = { byte_size: 64, session: session.id };
      const { id } = await app.create(request);
      await app.create(request);
      const problem = await app.refused("session-quota-exceeded", "POST", "/v1/regions", request);
      expect(problem).toMatchObject({ status: 507, requested_bytes: charge, available_bytes: 0 });
      expect(holdersOf(problem)).toEqual([{ session: `${session.id} (trainer)`, used_bytes: 2 * charge }]);
      await app.remove(id);
      await app.create(request);
    }),
  );

  test(
    "does not count what drains, what others own, and what it does not own any more",
    apps.with(async (app) => {
      const session = await openSession(app, { quota_bytes: charge });
      const request = { byte_size: 64, session: session.id };
      await app.create({ byte_size: MiB, session: (await openSession(app)).id });
      await app.create({ byte_size: MiB });
      const drains = await app.create(request);
      using _ = lease(drains.storage.path);
      expect((await app.remove(drains.id)).state).toBe("draining");
      const changes = await app.create(request);
      await app.refused("session-quota-exceeded", "POST", "/v1/regions", request);
      await app.seal(changes.id);
      await app.ok(200, "PATCH", `/v1/regions/${changes.id}`, { ttl_ms: 60_000 });
      await app.create(request);
    }),
  );

  test(
    "counts what is built under its claim, until that is sealed",
    apps.with(async (app) => {
      const session = await openSession(app, { quota_bytes: charge });
      const { claim } = await claimName(app, session);
      const request = { name: "weights", claim, linger_ms: 60_000 };
      await app.refused("session-quota-exceeded", "POST", "/v1/regions", { ...request, byte_size: 4097 });
      const { id } = await app.create({ ...request, byte_size: 64 });
      await app.refused("session-quota-exceeded", "POST", "/v1/regions", { byte_size: 1, session: session.id });
      await app.seal(id);
      await app.create({ byte_size: 64, session: session.id });
    }),
  );

  test(
    "is refunded when the creation fails",
    withApp(
      async (app) => {
        const session = await openSession(app, { quota_bytes: 512 * MiB });
        const before = app.footprint();
        await app.refused("pool-full", "POST", "/v1/regions", { byte_size: poolBytes, session: session.id });
        expect(app.footprint()).toEqual(before);
        expect(await app.ok<Session>(200, "GET", `/v1/sessions/${session.id}`)).toMatchObject({ used_bytes: 0 });
      },
      { memoryLimitBytes: poolBytes },
    ),
  );

  test(
    "of nothing lets nothing be made, since also a region without bytes has a header",
    apps.with(async (app) => {
      const session = await openSession(app, { quota_bytes: 0 });
      await app.refused("session-quota-exceeded", "POST", "/v1/regions", { byte_size: 0, session: session.id });
      await app.create({ byte_size: 0 });
    }),
  );
});

describe("a full pool and a full model", () => {
  for (const [code, model] of [
    ["pool-full", undefined],
    ["model-limit-exceeded", "small"],
  ] as const) {
    test(
      `answer ${code} with what is asked and free, and the sessions that own something, the largest first`,
      withApp(
        async (app) => {
          await app.register("small", 8 * MiB);
          await openSession(app, { name: "idle" });
          const names: string[] = [];
          for (let index = 0; index < 4; index++) {
            const { id } = await openSession(app, { name: `holder-${index}` });
            await app.create({ model: "small", byte_size: index * MiB, session: id });
            names.push(`${id} (holder-${index})`);
          }
          const request = { byte_size: poolBytes / 2, ttl_ms: 1000, ...(model === undefined ? {} : { model }) };
          const problem = await app.refused(code, "POST", "/v1/regions", request);
          expect(problem.requested_bytes).toBe(poolBytes / 2 + 4096);
          expect(problem.available_bytes).toBe(2 * MiB - 4 * 4096);
          expect(holdersOf(problem)).toEqual(
            [3, 2, 1, 0].map((index) => ({ session: names[index] ?? "", used_bytes: index * MiB + 4096 })),
          );
        },
        { memoryLimitBytes: poolBytes },
      ),
    );
  }

  test(
    "say how much no session owns, and how much drains",
    withApp(
      async (app) => {
        await app.create({ byte_size: 2 * MiB, linger_ms: 60_000 });
        const { id, storage } = await app.create({ byte_size: MiB, ttl_ms: 60_000 });
        using _ = lease(storage.path);
        await app.remove(id);
        const problem = await app.refused("pool-full", "POST", "/v1/regions", { byte_size: poolBytes, ttl_ms: 1000 });
        expect(problem).toMatchObject({
          holders: [],
          without_session_bytes: 2 * MiB + 4096,
          draining_bytes: MiB + 4096,
        });
      },
      { memoryLimitBytes: poolBytes },
    ),
  );

  test(
    "name no more than the five largest",
    apps.with(async (app) => {
      await app.register("small", MiB);
      for (let index = 0; index < 7; index++) {
        await app.create({ model: "small", byte_size: index * 4096, session: (await openSession(app)).id });
      }
      const request = { model: "small", byte_size: MiB, ttl_ms: 1000 };
      const problem = await app.refused("model-limit-exceeded", "POST", "/v1/regions", request);
      expect(holdersOf(problem).map(({ used_bytes }) => used_bytes / 4096)).toEqual([7, 6, 5, 4, 3]);
    }),
  );

  test(
    "have what drains counted, although the session is not charged for it",
    apps.with(async (app) => {
      await app.register("small", charge);
      const session = await openSession(app);
      const { storage } = await app.create({ model: "small", session: session.id });
      using _ = lease(storage.path);
      await endSession(app, session);
      const request = { model: "small", byte_size: 64, ttl_ms: 1000 };
      const problem = await app.refused("model-limit-exceeded", "POST", "/v1/regions", request);
      expect(problem).toMatchObject({ holders: [], draining_bytes: charge });
    }),
  );
});
