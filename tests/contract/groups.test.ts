/** A group is sealed in one turn and opened in one: whoever asks for all of it gets one version of all of it. */

import { afterAll, describe, expect, spyOn, test } from "bun:test";
import { existsSync, lstatSync, unlinkSync } from "node:fs";
import { idOf } from "../../src/memory/journal/region-record.ts";
import { createRegion } from "../../src/memory/regions/create.ts";
import { toCreateRequest } from "../../src/routes/region-request.ts";
import type { Region } from "../harness/answers.ts";
import { type TestApp, withApp } from "../harness/app.ts";
import { LentApps } from "../harness/lent-app.ts";
import { until } from "../harness/server-wait.ts";
import { sealGroup } from "./support/group-failures.ts";
import { Intruder, lease } from "./support/lease.ts";
import { watchWaits } from "./support/sessions.ts";

const apps = new LentApps();
afterAll(() => apps.end());

interface Group<Item = Region> {
  readonly items: readonly Item[];
}

const names = ["shard-0", "shard-1"];

/** A region for each name, of one version of a model's weights. */
async function makeShards(app: TestApp, more: object = {}): Promise<Region[]> {
  const shards: Region[] = [];
  for (const name of names) shards.push(await app.create({ name, ...more }));
  return shards;
}

const idsOf = (regions: readonly { readonly id: string }[]) => regions.map(({ id }) => id);
const modeOf = ({ storage }: Region) => lstatSync(storage.path).mode & 0o7777;

/** Without a request, of which each is held against the document. */
async function createQuickly({ store }: TestApp, name: string): Promise<{ id: string; name: string }> {
  const request = toCreateRequest(store, { name, byte_size: 1, ttl_ms: 600_000 });
  const { region } = await createRegion(store, { ...request, createdBy: null }, new AbortController().signal);
  return { id: idOf(region), name };
}

async function seal(app: TestApp, regions: readonly { readonly id: string }[], more?: object): Promise<Group> {
  const { status, body } = await sealGroup(app, idsOf(regions), more);
  expect({ status, body }).toMatchObject({ status: 200 });
  return body as Group;
}

const open = (app: TestApp, body: object = { names }, headers = {}) =>
  app.ok<Group>(200, "POST", "/v1/open", body, { headers });

describe("a group", () => {
  test(
    "is sealed as each of it would be, and answered in the order that was asked for, without tensors",
    apps.with(async (app) => {
      const [first, second] = await makeShards(app);
      const { items } = await seal(app, [second, first] as Region[], { checksum: true, stock_writable: true });
      expect(items).toMatchObject([
        { id: second?.id, state: "sealed", revision: 2, tensor_count: 1, checksum: { algorithm: "xxh3-64-tree" } },
        { id: first?.id, state: "sealed", revision: 2, tensor_count: 1, checksum: { algorithm: "xxh3-64-tree" } },
      ]);
      expect(items[0]).not.toHaveProperty("tensors");
      expect(items[0]?.sealed_at).toBe(items[1]?.sealed_at ?? "");
      for (const region of [first, second] as Region[]) {
        expect(modeOf(region)).toBe(0o1760);
        expect(await app.verify(region.id)).toMatchObject({ ok: true });
      }
    }),
  );

  test("takes its names over in one turn: at every step they are all the old ones or all the new ones", async () => {
    const met = new Set<string>();
    let look = () => {};
    await withApp(
      async (app) => {
        await seal(app, await makeShards(app));
        const next = await makeShards(app, { if_exists: "replace" });
        const old = idsOf((await open(app)).items);
        const holders = () => names.map((name) => app.store.books.model("default").names.find(name)?.token);
        look = () => met.add(holders().join());
        await seal(app, next);
        look();
        const tokens = (ids: readonly string[]) => ids.map((id) => id.slice(4)).join();
        expect([...met]).toEqual([tokens(old), tokens(idsOf(next))]);
        expect(idsOf((await open(app)).items)).toEqual(idsOf(next));
        for (const id of old) await app.refused("region-not-found", "GET", `/v1/regions/${id}`);
      },
      { onStep: () => look() },
    )();
  });

  test(
    "has taken away the names of all that it replaces before it is answered, however long one of them takes to be freed",
    withApp(async (app) => {
      const old = await makeShards(app);
      await seal(app, old);
      const next = await makeShards(app, { if_exists: "replace" });
      const { memory } = app.store.storages.of({ storageForm: "shm" });
      const { promise: mayBeFreed, resolve } = Promise.withResolvers<void>();
      const free = memory.free.bind(memory);
      using _ = spyOn(memory, "free").mockImplementation(async (...given) => {
        await mayBeFreed;
        return await free(...given);
      });
      await seal(app, next);
      expect(old.map(({ storage }) => existsSync(storage.path))).toEqual([false, false]);
      resolve();
      for (const { id } of old)
        await until("it is freed", () => app.store.books.regionByToken(id.slice(4)) === undefined);
    }),
  );

  test(
    "is told as so many seals, and then as the ends of those that it replaces",
    withApp(async (app) => {
      const old = await makeShards(app);
      await seal(app, old);
      const next = await makeShards(app, { if_exists: "replace" });
      const after = app.store.events.last;
      await seal(app, next);
      const { items } = await app.ok<Group<{ type: string; data: { id: string; reason?: string } }>>(
        200,
        "GET",
        `/v1/events?after=${after}`,
      );
      expect(items.slice(0, 4).map(({ type, data }) => [type, data.id])).toEqual([
        ...idsOf(next).map((id) => ["tensord.region.sealed", id]),
        ...idsOf(old).map((id) => ["tensord.region.draining", id]),
      ]);
      expect(items.slice(2, 4).map(({ data }) => data.reason)).toEqual(["replaced", "replaced"]);
    }),
  );

  test(
    "of which one is refused is open, all of it, by its modes too, and can be sealed afterwards",
    apps.with(async (app) => {
      await seal(app, await makeShards(app));
      const old = idsOf((await open(app)).items);
      const next = await makeShards(app, { if_exists: "replace" });
      {
        using _ = lease(next[1]?.storage.path ?? "", "write");
        await app.refused("region-has-writers", "POST", "/v1/seal", {
          regions: next.map(({ id }) => ({ region: id })),
        });
      }
      for (const region of next) {
        expect(modeOf(region)).toBe(0o660);
        expect(await app.get(region.id)).toMatchObject({ state: "open", name: null, pending_name: expect.any(String) });
      }
      expect(idsOf((await open(app)).items)).toEqual(old);
      await seal(app, next);
    }),
  );

  test("minds a writer of any member that came while the modes were being set", async () => {
    let atMode = () => {};
    await withApp(
      async (app) => {
        const shards = await makeShards(app);
        using stack = new DisposableStack();
        let count = 0;
        atMode = () => {
          count += 1;
          if (count === 2) stack.use(lease(shards[0]?.storage.path ?? "", "write"));
        };
        const { body } = await sealGroup(app, idsOf(shards));
        expect(body).toMatchObject({ code: "region-has-writers", region: shards[0]?.id });
        for (const { id } of shards) expect(await app.get(id)).toMatchObject({ state: "open" });
      },
      { onStep: (step) => step === "seal.mode-set" && atMode() },
    )();
  });

  test(
    "whose second file a worker made shorter is open, also where the first one's checksum is taken",
    apps.with(async (app) => {
      const shards = await makeShards(app);
      using intruder = new Intruder(shards[1]?.storage.path ?? "");
      intruder.truncate(1);
      const { body } = await sealGroup(app, idsOf(shards), { checksum: true });
      expect(body).toMatchObject({ code: "io-error", region: shards[1]?.id });
      expect(shards.map(modeOf)).toEqual([0o660, 0o660]);
    }),
  );

  test(
    "is of one model, each region once, each with a name of its own",
    apps.with(async (app) => {
      await app.register("llama");
      const [first, second] = await makeShards(app);
      const other = await app.create({ model: "llama" });
      const unnamed = [await app.create(), await app.create()];
      const replacing = await app.create({ name: "shard-0", if_exists: "replace" });
      const rival = await app.create({ name: "shard-0", if_exists: "replace" });
      const versioned = await app.create({ name: "shard-0", version: "2" });
      const refusals = [
        [[first, other], "is of model"],
        [[first, second, first], "twice"],
        [[first, replacing], "both"],
        [[replacing, rival], "both"],
      ] as const;
      for (const [regions, why] of refusals) {
        const members = regions.map((region) => ({ region: region?.id }));
        const { detail } = await app.refused("validation-failed", "POST", "/v1/seal", { regions: members });
        expect(detail).toContain(why);
      }
      await seal(app, [first, second, ...unnamed, versioned] as Region[]);
    }),
  );

  test(
    "has at most 1,000 members, of which each is sealed and opened, and at least one",
    // Its store goes in less time than so many regions one by one.
    withApp(async (app) => {
      const regions: { id: string; name: string }[] = [];
      for (let shard = 0; shard < 1000; shard++) regions.push(await createQuickly(app, `shard-${shard}`));
      const members = regions.map(({ id }) => ({ region: id }));
      const all = regions.map(({ name }) => name);
      for (const [path, body] of [
        ["/v1/seal", { regions: [] }],
        ["/v1/seal", { regions: [...members, { region: "reg_aaaaaaaaaaaaaaaaaaaaaaaaaa" }] }],
        ["/v1/open", { names: [] }],
        ["/v1/open", { names: [...all, "another"] }],
      ] as const) {
        await app.refused("validation-failed", "POST", path, body);
      }
      expect((await seal(app, regions)).items).toHaveLength(1000);
      const { items } = await open(app, { names: all.toReversed() });
      expect(idsOf(items)).toEqual(idsOf(regions).toReversed());
      expect(new Set(items.map(({ state }) => state))).toEqual(new Set(["sealed"]));
    }),
  );

  test(
    "may have members whose revisions are said, and then is sealed only as it was known",
    apps.with(async (app) => {
      const [first, second] = (await makeShards(app)) as [Region, Region];
      await app.ok(200, "PATCH", `/v1/regions/${first.id}`, { labels: { a: "b" } });
      const members = (revision: number) => ({
        regions: [{ region: first.id, revision }, { region: second.id }],
      });
      const { detail } = await app.refused("revision-mismatch", "POST", "/v1/seal", members(1));
      expect(detail).toContain("its revision is 2, want 1");
      await app.ok(200, "POST", "/v1/seal", members(2));
      // As for one region: a condition counts where the request would succeed without it.
      await app.refused("region-sealed", "POST", "/v1/seal", members(2));
    }),
  );
});

describe("a group that is opened", () => {
  test(
    "comes in the order that was asked for, as descriptors with tensors",
    apps.with(async (app) => {
      const shards = await makeShards(app);
      await seal(app, shards);
      const { items } = await open(app, { names: names.toReversed() });
      expect(idsOf(items)).toEqual(idsOf(shards).toReversed());
      expect(items).toMatchObject(Array(2).fill({ state: "sealed", tensors: [{ name: "data", dtype: "U8" }] }));
      await app.refused("validation-failed", "POST", "/v1/open", { names: [...names, names[0]] });
    }),
  );

  test(
    "is of the version that is said, else of the newest of each",
    apps.with(async (app) => {
      const versions = new Map<string, string[]>();
      for (const version of ["1", "2"]) {
        const shards = await makeShards(app, { version });
        await seal(app, shards);
        versions.set(version, idsOf(shards));
      }
      const idsIn = async (more: object) => idsOf((await open(app, { names, ...more })).items);
      expect(await idsIn({ version: "1" })).toEqual(versions.get("1") ?? []);
      expect(await idsIn({})).toEqual(versions.get("2") ?? []);
      const { detail } = await app.refused("region-not-found", "POST", "/v1/open", { names, version: "3" });
      expect(detail).toContain('"shard-0"');
    }),
  );

  test(
    "is waited for until all of it is sealed",
    apps.with(async (app) => {
      const untilWaiting = watchWaits(app);
      const request = app.request("POST", "/v1/open", { names }, { headers: { prefer: "wait=60" } });
      await untilWaiting(1);
      const [first, second] = (await makeShards(app)) as [Region, Region];
      await app.seal(second.id);
      await untilWaiting(1);
      await app.seal(first.id);
      const { headers, body } = await request;
      expect(headers.get("preference-applied")).toBe("wait=60");
      expect((body as Group).items).toMatchObject([first, second].map(({ id }) => ({ id, state: "sealed" })));
    }),
  );

  test(
    "is answered as it is when the time is over, if all of it is there",
    apps.with(async (app) => {
      const [first] = (await makeShards(app)) as [Region, Region];
      await app.seal(first.id);
      const { items } = await open(app, { names }, { prefer: "wait=1" });
      expect(items.map(({ state }) => state)).toEqual(["sealed", "open"]);
    }),
  );

  test(
    "has the public names back that a reader took, and is not found if one's memory is gone",
    withApp(async (app) => {
      const shards = await makeShards(app);
      await seal(app, shards);
      const [, second] = shards as [Region, Region];
      unlinkSync(second.storage.path);
      await open(app);
      expect(modeOf(second)).toBe(0o1540);
      unlinkSync(`${app.shmDirectory}/tensord.${app.instance}/keep/${second.id.slice(4)}`);
      unlinkSync(second.storage.path);
      const { body } = await app.request("POST", "/v1/open", { names });
      expect(body).toMatchObject({ code: "region-not-found", detail: expect.stringContaining('"shard-1"') });
    }),
  );
});
