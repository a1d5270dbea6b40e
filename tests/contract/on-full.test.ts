/** What an allocation does when there is no room: fail, make room by eviction, or wait for it in its turn. */

import { describe, expect, test } from "bun:test";
import { limits, MiB } from "../../src/memory/limits.ts";
import { hostOf } from "../../src/server/cli/pools.ts";
import type { Answer, Region } from "../harness/answers.ts";
import { type TestApp, until, withApp } from "../harness/app.ts";
import { Clock } from "./support/clock.ts";
import { lease } from "./support/lease.ts";
import { idInState } from "./support/region-failures.ts";
import { endSession, openSession } from "./support/sessions.ts";

/** The pool beside the journal's share: what regions may take. */
const roomBytes = 8 * MiB;
const options = { memoryLimitBytes: roomBytes + limits.journalBytes };

/** The data of a region that takes `mib` MiB with its header. */
const sized = (mib: number) => ({ byte_size: mib * MiB - 4096 });

function withPool(use: (app: TestApp) => Promise<void>): () => Promise<void> {
  return withApp(use, options);
}

function ask(app: TestApp, body: object, signal?: AbortSignal): Promise<Answer> {
  return app.request("POST", "/v1/regions", { ttl_ms: 600_000, ...body }, signal === undefined ? {} : { signal });
}

function wait(app: TestApp, body: object, signal?: AbortSignal): Promise<Answer> {
  return ask(app, { on_full: "wait", deadline_ms: 60_000, ...body }, signal);
}

function untilWaiting(app: TestApp, count: number): Promise<true> {
  return until(`${count} wait`, () => app.store.room.size === count);
}

async function createEvictable(app: TestApp, mib: number, body: object = {}): Promise<Region> {
  const { id } = await app.create({ ...sized(mib), evictable: true, ...body });
  return app.seal(id);
}

/** Instead of the TTL. */
const ownedBy = (session: string) => ({ ttl_ms: undefined, session });

const statusOf = async (answer: Promise<Answer>) => (await answer).status;
const nameOf = ({ body }: Answer) => (body as Region).name;

async function namesOf(app: TestApp): Promise<(string | null)[]> {
  const { items } = await app.ok<{ items: Region[] }>(200, "GET", "/v1/regions?state=sealed");
  return items.map(({ name }) => name);
}

test(
  "without a word, and with fail, an allocation fails at once and evicts nothing",
  withPool(async (app) => {
    using clock = new Clock();
    await createEvictable(app, 8);
    clock.advance(limits.handOutMs);
    for (const how of [{}, { on_full: "fail", deadline_ms: 60_000 }]) {
      await app.refused("pool-full", "POST", "/v1/regions", { ...sized(1), ttl_ms: 1000, ...how });
    }
  }),
);

for (const howOnFull of ["fail", "evict", "wait"]) {
  test(
    `with ${howOnFull} an allocation takes what drained and was let go of a moment ago`,
    withPool(async (app) => {
      const { id, storage } = await app.create(sized(8));
      {
        using _ = lease(storage.path);
        await app.remove(id);
        // The next question of the books is this far away.
        await until("it is asked seldom", () => app.store.books.region(id).pollDelayMs >= 320);
        await app.refused("pool-full", "POST", "/v1/regions", { ...sized(8), ttl_ms: 1000 });
      }
      expect(await statusOf(ask(app, { ...sized(8), on_full: howOnFull, deadline_ms: 1 }))).toBe(201);
    }),
  );
}

describe("with evict an allocation", () => {
  test(
    "makes room by evicting as much as it needs, least recently used first",
    withPool(async (app) => {
      using clock = new Clock();
      for (const name of ["a", "b", "c", "d"]) await createEvictable(app, 2, { name });
      clock.advance(limits.handOutMs);
      expect((await ask(app, { ...sized(3), on_full: "evict" })).status).toBe(201);
      expect(await namesOf(app)).toEqual(["c", "d"]);
      expect((await ask(app, { ...sized(1), on_full: "evict" })).status).toBe(201);
      expect(await namesOf(app)).toEqual(["c", "d"]);
    }),
  );

  test(
    "does not wait: what is leased or was handed out is no room",
    withPool(async (app) => {
      using clock = new Clock();
      const { storage } = await createEvictable(app, 4);
      await app.create(sized(4));
      using _ = lease(storage.path);
      clock.advance(limits.handOutMs);
      const request = { ...sized(1), ttl_ms: 1000, on_full: "evict", deadline_ms: 60_000 };
      await app.refused("pool-full", "POST", "/v1/regions", request);
    }),
  );

  test(
    "evicts nothing unless that is enough",
    withPool(async (app) => {
      using clock = new Clock();
      await createEvictable(app, 1, { name: "small" });
      await app.create(sized(7));
      clock.advance(limits.handOutMs);
      await app.refused("pool-full", "POST", "/v1/regions", { ...sized(2), ttl_ms: 1000, on_full: "evict" });
      expect(await namesOf(app)).toEqual(["small"]);
    }),
  );

  test(
    "evicts of its model only if that is what is full, and of its session if that is",
    withPool(async (app) => {
      using clock = new Clock();
      await app.register("small", 2 * MiB);
      const { id: session } = await openSession(app, { quota_bytes: MiB });
      await createEvictable(app, 1, { name: "other" });
      await createEvictable(app, 2, { name: "model", model: "small" });
      await createEvictable(app, 1, { name: "session", session });
      clock.advance(limits.handOutMs);
      expect(await statusOf(ask(app, { ...sized(1), model: "small", on_full: "evict" }))).toBe(201);
      expect(await namesOf(app)).toEqual(["other", "session"]);
      const own = { ...sized(1), session, on_full: "evict" };
      expect((await app.request("POST", "/v1/regions", own)).status).toBe(201);
      expect(await namesOf(app)).toEqual(["other"]);
    }),
  );

  test(
    "makes room under each limit that is short",
    withPool(async (app) => {
      using clock = new Clock();
      await app.register("small", 2 * MiB);
      await createEvictable(app, 4, { name: "other" });
      await createEvictable(app, 1, { name: "own", model: "small" });
      await app.create(sized(3));
      clock.advance(limits.handOutMs);
      expect(await statusOf(ask(app, { ...sized(2), model: "small", on_full: "evict" }))).toBe(201);
      expect(await namesOf(app)).toEqual([]);
    }),
  );

  test(
    "makes room under a limit that was lowered below what is used",
    withPool(async (app) => {
      using clock = new Clock();
      await app.register("small", 4 * MiB);
      for (const name of ["a", "b", "c", "d"]) await createEvictable(app, 1, { name, model: "small" });
      await app.ok(200, "PATCH", "/v1/models/small", { memory_limit_bytes: 2 * MiB });
      clock.advance(limits.handOutMs);
      expect(await statusOf(ask(app, { ...sized(1), model: "small", on_full: "evict" }))).toBe(201);
      expect(await namesOf(app)).toEqual(["d"]);
    }),
  );
});

describe("with wait an allocation", () => {
  const frees: readonly (readonly [string, (app: TestApp, region: Region) => Promise<unknown>])[] = [
    ["a region is deleted", (app, { id }) => app.remove(id)],
    ["a session ends", (app, { session }) => app.ok(200, "DELETE", `/v1/sessions/${session}`)],
    ["a region's TTL is over", (app, { id }) => app.ok(200, "PATCH", `/v1/regions/${id}`, { ttl_ms: 1 })],
    [
      "the last lease of a draining region ends",
      async (app, { id, storage }) => {
        using _ = lease(storage.path);
        expect((await app.remove(id)).state).toBe("draining");
      },
    ],
  ];
  for (const [what, free] of frees) {
    test(
      "that is late, though there is room for it, says that those before it have that room",
      withPool(async (app) => {
        const { id } = await app.create(sized(4));
        const large = wait(app, sized(8));
        await untilWaiting(app, 1);
        const late = await wait(app, { ...sized(1), deadline_ms: 1 });
        expect(late).toMatchObject({ status: 504, body: { code: "deadline-exceeded" } });
        expect((late.body as { detail: string }).detail).toBe(
          "Cannot wait longer for memory: what came free is for those who asked before",
        );
        await app.remove(id);
        expect(await statusOf(large)).toBe(201);
      }),
    );

    test(
      `gets its room when ${what}`,
      withPool(async (app) => {
        const region = await app.create({ ...sized(8), session: (await openSession(app)).id });
        const waiting = wait(app, { ...sized(8), name: "late" });
        await untilWaiting(app, 1);
        await free(app, region);
        expect(await waiting).toMatchObject({ status: 201, body: { name: "late", state: "open" } });
        await untilWaiting(app, 0);
      }),
    );
  }

  test(
    "gets its room by what frees it, and not only at the next look",
    withPool(async (app) => {
      const { id } = await app.create(sized(8));
      const waiting = wait(app, sized(8));
      await untilWaiting(app, 1);
      await app.remove(id);
      expect(app.store.room.size).toBe(0);
      expect(await statusOf(waiting)).toBe(201);
    }),
  );

  test(
    "gets its room when its model's limit is raised",
    withPool(async (app) => {
      await app.register("small", MiB);
      await app.create({ ...sized(1), model: "small" });
      const waiting = wait(app, { ...sized(1), model: "small" });
      await untilWaiting(app, 1);
      await app.ok(200, "PATCH", "/v1/models/small", { memory_limit_bytes: 2 * MiB });
      expect(await statusOf(waiting)).toBe(201);
    }),
  );

  test(
    "gets its room when a creation that took it fails",
    withApp(
      async (app) => {
        const abort = new AbortController();
        const failing = ask(app, { byte_size: 192 * MiB }, abort.signal).catch(() => {});
        await idInState(app, "creating");
        const waiting = wait(app, { byte_size: 64 * MiB });
        await untilWaiting(app, 1);
        abort.abort();
        await failing;
        expect(await statusOf(waiting)).toBe(201);
      },
      { memoryLimitBytes: 200 * MiB + limits.journalBytes },
    ),
  );

  test(
    "evicts what may go at once, and what may go later when it may",
    withPool(async (app) => {
      using clock = new Clock();
      const { storage } = await createEvictable(app, 4, { name: "leased" });
      await createEvictable(app, 4, { name: "free" });
      clock.advance(limits.handOutMs);
      let waiting: Promise<Answer>;
      {
        using _ = lease(storage.path);
        expect(await statusOf(wait(app, sized(4)))).toBe(201);
        expect(await namesOf(app)).toEqual(["leased"]);
        waiting = wait(app, sized(4));
        await untilWaiting(app, 1);
        expect(await namesOf(app)).toEqual(["leased"]);
      }
      expect(await statusOf(waiting)).toBe(201);
      expect(await namesOf(app)).toEqual([]);
    }),
  );

  test(
    "fails with the numbers when its deadline is over",
    withPool(async (app) => {
      const session = await openSession(app, { name: "trainer" });
      await app.create({ ...sized(7), session: session.id });
      const before = app.footprint();
      const begun = performance.now();
      const { body } = await wait(app, { ...sized(2), deadline_ms: 100 });
      expect(performance.now() - begun).toBeGreaterThan(99);
      expect(body).toMatchObject({
        code: "deadline-exceeded",
        requested_bytes: 2 * MiB,
        available_bytes: MiB,
        holders: [{ session: `${session.id} (trainer)`, used_bytes: 7 * MiB }],
      });
      expect(app.footprint()).toEqual(before);
    }),
  );

  test(
    "has half a minute if it says no deadline",
    withPool(async (app) => {
      const deadlines: number[] = [];
      const { room } = app.store;
      const add = room.add.bind(room);
      room.add = (waiting) => {
        deadlines.push(waiting.deadline);
        add(waiting);
      };
      await app.create(sized(8));
      const before = performance.now();
      void ask(app, { ...sized(1), on_full: "wait" });
      await untilWaiting(app, 1);
      expect(deadlines).toHaveLength(1);
      expect(deadlines[0]).toBeWithin(before + 30_000, performance.now() + 30_000);
    }),
  );

  const hopeless = [
    ["the server has", "pool-full", () => sized(9)],
    ["its model may have", "model-limit-exceeded", () => ({ ...sized(2), model: "small" })],
    ["its session may have", "session-quota-exceeded", (session: string) => ({ ...sized(2), ...ownedBy(session) })],
  ] as const;
  for (const [what, code, toBody] of hopeless) {
    test(
      `fails at once if it asks for more than ${what}`,
      withPool(async (app) => {
        await app.register("small", MiB);
        const { id: session } = await openSession(app, { quota_bytes: MiB });
        const answer = await wait(app, toBody(session));
        expect(answer.body).toMatchObject({ code });
      }),
    );
  }

  test(
    "leaves nothing behind when its client goes away, or the server stops",
    withPool(async (app) => {
      await app.create(sized(8));
      const before = app.footprint();
      const abort = new AbortController();
      const gone = wait(app, sized(1), abort.signal).catch(() => {});
      const stays = wait(app, sized(1));
      await untilWaiting(app, 2);
      abort.abort();
      await gone;
      await untilWaiting(app, 1);
      app.store.stop();
      expect((await stays).body).toMatchObject({ code: "shutting-down" });
      expect(app.footprint()).toEqual(before);
    }),
  );

  test(
    "looks at everything again: its session may have ended, its name may be taken or claimed",
    withPool(async (app) => {
      const full = await app.create(sized(8));
      const session = await openSession(app);
      const ended = wait(app, { ...sized(1), ...ownedBy(session.id) });
      await untilWaiting(app, 1);
      const first = wait(app, { ...sized(1), name: "weights" });
      await untilWaiting(app, 2);
      const second = wait(app, { ...sized(1), name: "weights" });
      await untilWaiting(app, 3);
      const attaches = wait(app, { ...sized(1), name: "weights", if_exists: "attach" });
      await untilWaiting(app, 4);
      await endSession(app, session);
      await app.remove(full.id);
      expect((await ended).body).toMatchObject({ code: "session-not-found" });
      expect(await statusOf(first)).toBe(201);
      expect((await second).body).toMatchObject({ code: "name-taken" });
      expect(await statusOf(attaches)).toBe(200);
      expect(hostOf(await app.stats())).toMatchObject({ used_bytes: MiB });
    }),
  );
});

describe("those who wait", () => {
  test(
    "for the server's memory have their turns in the order in which they came, a large one too",
    withPool(async (app) => {
      const regions = [await app.create(sized(2)), await app.create(sized(6))];
      const order: (string | null)[] = [];
      const note = (answer: Promise<Answer>) => answer.then((got) => order.push(nameOf(got)));
      const large = note(wait(app, { ...sized(6), name: "large" }));
      await untilWaiting(app, 1);
      const small = note(wait(app, { ...sized(2), name: "small" }));
      await untilWaiting(app, 2);
      await app.remove(regions[0]?.id ?? "");
      // There is room for the small one, and it is not its turn; nor is it that of one that comes now.
      const late = note(wait(app, { ...sized(1), name: "late" }));
      await untilWaiting(app, 3);
      expect(order).toEqual([]);
      await app.remove(regions[1]?.id ?? "");
      await Promise.all([large, small]);
      expect(order).toEqual(["large", "small"]);
      const { items } = await app.ok<{ items: Region[] }>(200, "GET", "/v1/regions");
      await app.remove(items[0]?.id ?? "");
      await late;
      expect(order).toEqual(["large", "small", "late"]);
    }),
  );

  test(
    "for their own model or session let others pass",
    withPool(async (app) => {
      await app.register("small", MiB);
      const full = await app.create({ ...sized(1), model: "small" });
      const { id: session } = await openSession(app, { quota_bytes: MiB });
      const own = await app.create({ ...sized(1), session });
      const forModel = wait(app, { ...sized(1), model: "small" });
      const forSession = wait(app, { ...sized(1), ...ownedBy(session) });
      await untilWaiting(app, 2);
      expect(await statusOf(wait(app, sized(1)))).toBe(201);
      expect(app.store.room.size).toBe(2);
      await app.remove(own.id);
      expect(await statusOf(forSession)).toBe(201);
      expect(app.store.room.size).toBe(1);
      await app.remove(full.id);
      expect(await statusOf(forModel)).toBe(201);
    }),
  );

  test(
    "and fit together get their room together, and no more than there is",
    withPool(async (app) => {
      const { id } = await app.create(sized(8));
      const waiting = Array.from({ length: 11 }, (_, index) => wait(app, { ...sized(1), name: `n${index}` }));
      await untilWaiting(app, 11);
      await app.remove(id);
      const first = await Promise.all(waiting.slice(0, 8));
      expect(first.map(({ status }) => status)).toEqual(new Array(8).fill(201));
      await untilWaiting(app, 3);
      expect(hostOf(await app.stats())).toMatchObject({ used_bytes: roomBytes });
      for (const { body } of first) await app.remove((body as Region).id);
      for (const answer of waiting) expect(await statusOf(answer)).toBe(201);
    }),
  );
});
