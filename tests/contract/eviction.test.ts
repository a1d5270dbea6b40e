/** Eviction: what may go to make room, in which order, how much of it, and what stays and why. */

import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { limits } from "../../src/memory/limits.ts";
import type { StoreEvent } from "../../src/memory/state/store-event.ts";
import { hostOf } from "../../src/server/cli/pools.ts";
import type { Region } from "../harness/answers.ts";
import { type TestApp, withApp } from "../harness/app.ts";
import { Clock } from "./support/clock.ts";
import { lease } from "./support/lease.ts";
import { claimName, evict, openSession, takeLease } from "./support/sessions.ts";

/** A page of header and a page of data. */
const charge = 8192;

/** Sealed regions that may go, the first one least recently used. */
async function createEvictables(app: TestApp, ...names: string[]): Promise<Region[]> {
  const regions: Region[] = [];
  for (const name of names) {
    const { id } = await app.create({ name, evictable: true, persist: true });
    regions.push(await app.seal(id));
  }
  return regions;
}

const namesOf = (items: readonly { readonly name: string | null }[]) => items.map(({ name }) => name);

/** A test's body with a clock: nothing is evicted that was handed out a moment ago. */
function withClock(use: (app: TestApp, clock: Clock) => Promise<void>): () => Promise<void> {
  return withApp(async (app) => {
    using clock = new Clock();
    await use(app, clock);
  });
}

describe("eviction takes", () => {
  test(
    "the least recently used first, and no more than is asked for",
    withClock(async (app, clock) => {
      const [a, b, c] = await createEvictables(app, "a", "b", "c");
      clock.advance(limits.handOutMs);
      const { evicted, kept, ...rest } = await evict(app, { bytes: charge + 1 });
      expect(rest).toEqual({ dry_run: false, enough: true, freed_bytes: 2 * charge });
      expect(evicted).toEqual(
        [a, b].map((region, index) => ({
          region: region?.id ?? "",
          model: "default",
          name: index === 0 ? "a" : "b",
          bytes: charge,
          last_used_at: region?.last_used_at ?? "",
        })),
      );
      expect(kept).toEqual([{ region: c?.id ?? "", model: "default", name: "c", bytes: charge, reason: "not-needed" }]);
      for (const region of [a, b]) expect(existsSync(region?.storage.path ?? "")).toBeFalse();
      expect(hostOf(await app.stats())).toMatchObject({ used_bytes: charge, draining_bytes: 0 });
    }),
  );

  test(
    "what was used last last, whatever it was created",
    withClock(async (app, clock) => {
      const [a, b, c] = await createEvictables(app, "a", "b", "c");
      clock.advance(1);
      await app.get(a?.id ?? "");
      clock.advance(1);
      await app.ok(200, "GET", "/v1/models/default/regions/b");
      clock.advance(1);
      await claimName(app, await openSession(app));
      await app.ok(200, "POST", "/v1/models/default/regions/a/claim", { session: (await openSession(app)).id });
      clock.advance(limits.handOutMs);
      // A list hands nothing out.
      await app.ok(200, "GET", "/v1/regions");
      const { evicted } = await evict(app, { bytes: 3 * charge });
      expect(evicted.map(({ region }) => region)).toEqual([c, b, a].map((region) => region?.id ?? ""));
    }),
  );

  test(
    "of one model only, if one is named",
    withClock(async (app, clock) => {
      await app.register("llama");
      await createEvictables(app, "a");
      const { id } = await app.create({ model: "llama", name: "b", evictable: true });
      await app.seal(id);
      clock.advance(limits.handOutMs);
      const { evicted, kept, enough } = await evict(app, { bytes: 2 * charge, model: "llama" });
      expect({ evicted: namesOf(evicted), kept, enough }).toEqual({ evicted: ["b"], kept: [], enough: false });
    }),
  );

  test(
    "what became evictable by a change, and nothing that is so no more",
    withClock(async (app, clock) => {
      const { id } = await app.create({ name: "late" });
      expect((await app.seal(id)).evictable).toBeFalse();
      const [stays] = await createEvictables(app, "stays");
      expect(await app.ok<Region>(200, "PATCH", `/v1/regions/${id}`, { evictable: true })).toMatchObject({
        evictable: true,
        revision: 3,
      });
      await app.ok(200, "PATCH", `/v1/regions/${stays?.id}`, { evictable: false });
      clock.advance(limits.handOutMs);
      const { evicted, kept } = await evict(app, { bytes: 10 * charge });
      expect({ evicted: namesOf(evicted), kept }).toEqual({ evicted: ["late"], kept: [] });
    }),
  );

  test(
    "regions of every owner, and tells of each that it was evicted",
    withClock(async (app, clock) => {
      const told: unknown[] = [];
      app.store.listen((event: StoreEvent) => {
        if (event.type === "tensord.region.deleted") told.push(event.region.reason);
      });
      const session = await openSession(app);
      for (const owner of [{ session: session.id }, { linger_ms: 600_000 }, { ttl_ms: 600_000 }]) {
        await app.seal((await app.create({ evictable: true, ...owner })).id);
      }
      await createEvictables(app, "persists");
      clock.advance(limits.handOutMs);
      expect(await evict(app, { bytes: 4 * charge })).toMatchObject({ enough: true, freed_bytes: 4 * charge });
      expect(told).toEqual(["evicted", "evicted", "evicted", "evicted"]);
    }),
  );
});

describe("eviction leaves", () => {
  test(
    "what nobody called evictable, and what is not sealed, and counts neither",
    withClock(async (app, clock) => {
      await app.seal((await app.create({ name: "plain" })).id);
      await app.create({ name: "open", evictable: true });
      await createEvictables(app, "goes");
      clock.advance(limits.handOutMs);
      for (const dry_run of [true, false]) {
        const { evicted, kept, ...rest } = await evict(app, { bytes: charge, dry_run });
        expect(rest).toEqual({ dry_run, enough: true, freed_bytes: charge });
        expect({ evicted: namesOf(evicted), kept }).toEqual({ evicted: ["goes"], kept: [] });
      }
      expect((await app.stats()).regions).toMatchObject({ open: 1, sealed: 1 });
    }),
  );

  test(
    "what is leased, by a mapping or by request, and says so",
    withClock(async (app, clock) => {
      const [mapped, leased] = await createEvictables(app, "mapped", "leased", "free");
      using _ = lease(mapped?.storage.path ?? "");
      await takeLease(app, leased?.id, { ttl_ms: limits.sessionTtlMaxMs });
      clock.advance(limits.handOutMs);
      const { evicted, kept, enough } = await evict(app, { bytes: 3 * charge });
      expect({ evicted: namesOf(evicted), enough }).toEqual({ evicted: ["free"], enough: false });
      expect(kept.map(({ name, reason }) => [name, reason])).toEqual([
        ["mapped", "leased"],
        ["leased", "leased"],
      ]);
      expect((await app.get(mapped?.id ?? "")).state).toBe("sealed");
    }),
  );

  test("what was mapped while another one went", async () => {
    using clock = new Clock();
    let atFirst = () => {};
    await withApp(
      async (app) => {
        const [, second] = await createEvictables(app, "first", "second");
        clock.advance(limits.handOutMs);
        using stack = new DisposableStack();
        atFirst = () => stack.use(lease(second?.storage.path ?? ""));
        const { evicted, enough } = await evict(app, { bytes: 2 * charge });
        expect({ evicted: namesOf(evicted), enough }).toEqual({ evicted: ["first"], enough: false });
        expect(await app.get(second?.id ?? "")).toMatchObject({ state: "sealed", name: "second" });
      },
      { onStep: (step) => step === "delete.keeper-unlinked" && atFirst() },
    )();
  });

  test(
    "what was handed out in the last ten seconds, and says so",
    withClock(async (app, clock) => {
      const [a] = await createEvictables(app, "a", "b");
      clock.advance(limits.handOutMs - 1000);
      await app.get(a?.id ?? "");
      clock.advance(1000);
      const first = await evict(app, { bytes: 2 * charge });
      expect({ evicted: namesOf(first.evicted), kept: first.kept }).toMatchObject({
        evicted: ["b"],
        kept: [{ name: "a", reason: "handed-out" }],
      });
      clock.advance(limits.handOutMs - 1000);
      expect(namesOf((await evict(app, { bytes: charge })).evicted)).toEqual(["a"]);
    }),
  );

  test(
    "everything, if no byte is asked for",
    withClock(async (app, clock) => {
      await createEvictables(app, "a");
      clock.advance(limits.handOutMs);
      const { evicted, kept, enough } = await evict(app, { bytes: 0 });
      expect({ evicted, enough }).toEqual({ evicted: [], enough: true });
      expect(kept).toMatchObject([{ name: "a", reason: "not-needed" }]);
    }),
  );

  test(
    "everything in a dry run, which says what would go",
    withClock(async (app, clock) => {
      await createEvictables(app, "a", "b");
      clock.advance(limits.handOutMs);
      const before = app.footprint();
      const dry = await evict(app, { bytes: charge, dry_run: true });
      expect(app.footprint()).toEqual(before);
      expect({ ...dry, dry_run: false }).toEqual(await evict(app, { bytes: charge }));
    }),
  );
});
