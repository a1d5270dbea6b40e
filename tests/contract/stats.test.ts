/** The books as they are told: sums that agree with the regions one by one, whatever has happened before. */

import { describe, expect, test } from "bun:test";
import { statSync } from "node:fs";
import fc from "fast-check";
import { MiB } from "../../src/memory/limits.ts";
import { hostOf } from "../../src/server/cli/pools.ts";
import type { ModelList, RegionList } from "../harness/answers.ts";
import { TestApp, toCharge, until, withApp } from "../harness/app.ts";
import { lease } from "./support/lease.ts";
import { idInState, slowBytes } from "./support/region-failures.ts";

/** What the books must say by the descriptors of all regions, and by the files behind them. */
async function checkBooks(app: TestApp): Promise<void> {
  const { items } = await app.ok<RegionList>(200, "GET", "/v1/regions?limit=1000");
  const models = await app.ok<ModelList>(200, "GET", "/v1/models?limit=1000");
  const stats = await app.stats();
  const sum = (of: typeof items) => of.reduce((bytes, { storage }) => bytes + toCharge(storage.byte_size), 0);
  const draining = items.filter(({ state }) => state === "draining");
  const standing = items.filter(({ state }) => state !== "draining");
  expect(hostOf(stats)).toMatchObject({ used_bytes: sum(standing), draining_bytes: sum(draining) });
  const counts: Record<string, number> = { creating: 0, open: 0, sealing: 0, sealed: 0, draining: 0 };
  for (const { state } of items) counts[state] = (counts[state] ?? 0) + 1;
  expect(stats.regions).toEqual(counts as typeof stats.regions);
  expect(stats.models).toBe(models.items.length);
  for (const model of models.items) {
    // What drains of a model that was unregistered is not in the books of one that took its name.
    const books = app.store.books.findModel(model.name);
    const own = items.filter(({ id }) => app.store.books.regionById(id)?.modelBooks === books);
    expect(model).toMatchObject({
      regions: own.length,
      pools: [
        {
          pool: "host",
          used_bytes: sum(own.filter(({ state }) => state !== "draining")),
          draining_bytes: sum(own.filter(({ state }) => state === "draining")),
        },
      ],
    });
  }
  const blocks = standing
    .filter(({ state }) => state !== "creating")
    .map(({ storage }) => statSync(storage.path).blocks * 512);
  expect(blocks.reduce((bytes, size) => bytes + size, 0)).toBe(
    sum(standing.filter(({ state }) => state !== "creating")),
  );
}

describe("the books", () => {
  test(
    "of a fresh instance are empty but for the journal",
    withApp(
      async (app) => {
        const { pools, journal_bytes, regions, models, instance, version, epoch, http } = await app.stats();
        expect(epoch).toBeGreaterThan(0);
        expect({ instance, version, models }).toEqual({ instance: app.instance, version: "0.0.0", models: 1 });
        expect(regions).toEqual({ creating: 0, open: 0, sealing: 0, sealed: 0, draining: 0 });
        expect(pools).toMatchObject([
          { pool: "host", limit_bytes: 64 * MiB, used_bytes: 0, draining_bytes: 0, available_bytes: 56 * MiB },
        ]);
        expect(journal_bytes).toBeGreaterThan(MiB);
        expect(http).toEqual({ requests: 0, received_bytes: 0, sent_bytes: 0 });
      },
      { memoryLimitBytes: 64 * MiB },
    ),
  );

  test(
    "count a region in each state",
    withApp(async (app) => {
      await app.create();
      await app.seal((await app.create()).id);
      const leased = await app.create();
      using _ = lease(leased.storage.path);
      await app.remove(leased.id);
      const sealing = await app.create({ byte_size: slowBytes });
      const seal = app.seal(sealing.id, { checksum: true });
      expect(await idInState(app, "sealing")).toBe(sealing.id);
      expect((await app.stats()).regions).toEqual({ creating: 0, open: 1, sealing: 1, sealed: 1, draining: 1 });
      await checkBooks(app);
      await seal;
      const creation = app.create({ byte_size: slowBytes });
      await idInState(app, "creating");
      expect((await app.stats()).regions).toEqual({ creating: 1, open: 1, sealing: 0, sealed: 2, draining: 1 });
      await checkBooks(app);
      await creation;
      await checkBooks(app);
    }),
  );

  test(
    "see what others put into the file system, and do not call it theirs",
    withApp(async (app) => {
      const before = await app.stats();
      const { id } = await app.create({ byte_size: 4 * MiB });
      const after = await app.stats();
      expect(hostOf(after).used_bytes - hostOf(before).used_bytes).toBe(toCharge(4 * MiB + 4096));
      expect(hostOf(before).available_bytes - hostOf(after).available_bytes).toBe(
        hostOf(after).used_bytes - hostOf(before).used_bytes,
      );
      expect(after.inodes.used).toBeGreaterThan(0);
      await app.remove(id);
    }),
  );

  test("agree with the regions after any sequence of requests", async () => {
    const command = fc.oneof(
      {
        weight: 4,
        arbitrary: fc.record({ kind: fc.constant("create" as const), size: fc.nat(20_000), name: fc.nat(3) }),
      },
      fc.record({
        kind: fc.constantFrom("seal", "delete", "lease", "release", "replace", "truncated"),
        pick: fc.nat(9),
      }),
      fc.record({ kind: fc.constantFrom("unregister", "register"), pick: fc.nat(1) }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(command, { maxLength: 25 }), async (commands) => {
        const app = await TestApp.open();
        const leases: Disposable[] = [];
        try {
          await app.register("m0");
          for (const step of commands) await perform(app, step, leases);
          await checkBooks(app);
          for (const held of leases) held[Symbol.dispose]();
          await until("all that drains is freed", async () => (await app.stats()).regions.draining === 0);
          await checkBooks(app);
        } finally {
          await app.close();
        }
        expect(app.mistakes).toEqual([]);
      }),
      { numRuns: 25 },
    );
  });
});

type Step =
  | { readonly kind: "create"; readonly size: number; readonly name: number }
  | { readonly kind: string; readonly pick: number };

async function perform(app: TestApp, step: Step, leases: Disposable[]): Promise<void> {
  if ("size" in step) {
    const model = step.name % 2 === 0 ? "default" : "m0";
    const name = step.name === 0 ? {} : { name: `n${step.name}` };
    await app.request("POST", "/v1/regions", { byte_size: step.size, ttl_ms: 60_000, model, ...name });
    return;
  }
  if (step.kind === "register") return void (await app.request("POST", "/v1/models", { name: `m${step.pick}` }));
  if (step.kind === "unregister") return void (await app.request("DELETE", `/v1/models/m${step.pick}?drain=true`));
  const { items } = await app.ok<RegionList>(200, "GET", "/v1/regions");
  const region = items[step.pick % Math.max(1, items.length)];
  if (step.kind === "release") return leases.pop()?.[Symbol.dispose]();
  if (region === undefined || region.state === "draining") return;
  if (step.kind === "seal") await app.request("POST", `/v1/regions/${region.id}/seal`, { checksum: true });
  if (step.kind === "delete") await app.request("DELETE", `/v1/regions/${region.id}`);
  if (step.kind === "lease") leases.push(lease(region.storage.path));
  if (step.kind === "replace" && region.name !== null) {
    const body = { byte_size: 1, ttl_ms: 60_000, name: region.name, model: region.model, if_exists: "replace" };
    const { id } = await app.ok<{ id: string }>(201, "POST", "/v1/regions", body);
    await app.seal(id);
  }
}
