/** The list of regions: pages that neither repeat nor miss, filters, and cursors that are none. */

import { describe, expect, spyOn, test } from "bun:test";
import { setImmediate } from "node:timers/promises";
import { limits } from "../../src/memory/limits.ts";
import type { RegionList } from "../harness/answers.ts";
import { type TestApp, withApp } from "../harness/app.ts";
import { lease } from "./support/lease.ts";
import { unknownSession } from "./support/requests.ts";
import { claimName, endSession, openSession } from "./support/sessions.ts";

function page(app: TestApp, query: string): Promise<RegionList> {
  return app.ok(200, "GET", `/v1/regions?${query}`);
}

/** All pages; `between` is called with the ids of each page before the next is asked for. */
async function all(app: TestApp, query: string, between = async (_ids: readonly string[]) => {}): Promise<string[]> {
  const ids: string[] = [];
  for (let cursor: string | null = ""; cursor !== null; ) {
    const { items, next_cursor }: RegionList = await page(app, cursor === "" ? query : `${query}&cursor=${cursor}`);
    ids.push(...items.map(({ id }) => id));
    cursor = next_cursor;
    await between(items.map(({ id }) => id));
  }
  return ids;
}

/** How many regions are written down at most between two turns that others have, while `wait` is under way. */
async function mostInATurn(wait: () => Promise<unknown>): Promise<number> {
  const { stringify } = JSON;
  let written = 0;
  using _ = spyOn(JSON, "stringify").mockImplementation(((...given: Parameters<typeof stringify>) => {
    const values = [given[0] as unknown].flat();
    written += values.filter((value) => typeof value === "object" && value !== null && "tensor_count" in value).length;
    return stringify(...given);
  }) as typeof stringify);
  let isDone = false;
  const done = wait().finally(() => {
    isDone = true;
  });
  let most = 0;
  while (!isDone) {
    written = 0;
    await setImmediate();
    most = Math.max(most, written);
  }
  await done;
  return most;
}

describe("pages", () => {
  test(
    "across 2,500 regions are in the order of creation, also when regions come and go between two",
    withApp(async (app) => {
      const created: string[] = [];
      for (let index = 0; index < 2500; index++) created.push((await app.create({ byte_size: 0 })).id);
      expect(await all(app, "limit=1000")).toEqual(created);
      const most = await mostInATurn(() => page(app, "limit=1000"));
      // Whose turn comes first is the runtime's: two slices may come together.
      expect(most, "others have their turn while a page is made").toBeWithin(limits.listSlice, 4 * limits.listSlice);

      const deleted = new Set<string>();
      const late: string[] = [];
      const seen = await all(app, "limit=300", async (ids) => {
        // Some of this page with its last one, at which the cursor stands, and some that are still to come.
        const next = created[created.indexOf(ids.at(-1) ?? "") + 1];
        const victims = new Set([...ids.filter((_, index) => index % 3 === 0), ids.at(-1), next]);
        for (const id of victims) {
          if (id === undefined || deleted.has(id)) continue;
          await app.remove(id);
          deleted.add(id);
        }
        if (late.length < 5) late.push((await app.create({ byte_size: 0 })).id);
      });
      expect(new Set(seen).size).toBe(seen.length);
      const stayed = created.filter((id) => !deleted.has(id));
      const wereThere = [...stayed, ...late].filter((id) => !deleted.has(id));
      expect(seen.filter((id) => !deleted.has(id))).toEqual(wereThere);
      expect(await all(app, "limit=999")).toEqual(wereThere);
    }),
  );

  test(
    "hold 100 regions if nothing else is said, and 1000 at most",
    withApp(async (app) => {
      for (let index = 0; index < 101; index++) await app.create({ byte_size: 0 });
      const first = await page(app, "");
      expect(first.items.length).toBe(limits.listItemsDefault);
      expect(await page(app, `cursor=${first.next_cursor}`)).toMatchObject({ next_cursor: null });
      expect((await page(app, "limit=1000")).items.length).toBe(101);
      for (const limit of ["0", "-1", "1001", "9999", "10000", "1.5", "ten", "", "1e2", "+1", "0x1", "01", " 1"]) {
        await app.refused("validation-failed", "GET", `/v1/regions?limit=${encodeURIComponent(limit)}`);
      }
    }),
  );

  test(
    "of a list that ends with a page end there, or in an empty one",
    withApp(async (app) => {
      for (let index = 0; index < 4; index++) await app.create({ byte_size: 0 });
      const last = await page(app, `limit=2&cursor=${(await page(app, "limit=2")).next_cursor}`);
      expect(last.items.length).toBe(2);
      if (last.next_cursor !== null) expect(await page(app, `cursor=${last.next_cursor}`)).toMatchObject({ items: [] });
    }),
  );

  test(
    "of nothing are empty and the last",
    withApp(async (app) => {
      expect(await page(app, "")).toEqual({ items: [], next_cursor: null });
      expect(await page(app, "cursor=4711")).toEqual({ items: [], next_cursor: null });
    }),
  );
});

describe("an item of a list", () => {
  test(
    "is the region's descriptor with the number of its tensors, however many, in their place",
    withApp(async (app) => {
      const names = ["a", "b", "c"];
      const made = await app.create({ tensors: names.map((name) => ({ name, dtype: "F32", shape: [2] })) });
      const { tensors, ...facts } = made;
      expect([tensors.length, facts.tensor_count]).toEqual([3, 3]);
      expect((await page(app, "")).items).toEqual([facts]);
      expect(await app.get(made.id)).toMatchObject({ tensors, tensor_count: 3 });
    }),
  );
});

describe("a cursor that no page gave", () => {
  for (const cursor of [
    "abc",
    "-1",
    "1.5",
    "1e3",
    "0x10",
    " 7",
    "7 ",
    "Infinity",
    "NaN",
    "9007199254740993",
    "1_000",
    "١",
  ]) {
    test(
      `${JSON.stringify(cursor)} is refused`,
      withApp(async (app) => {
        const problem = await app.refused(
          "validation-failed",
          "GET",
          `/v1/regions?cursor=${encodeURIComponent(cursor)}`,
        );
        expect(problem.detail.length).toBeLessThan(200);
      }),
    );
  }

  test(
    "is refused for its length alone",
    withApp(async (app) => {
      await app.refused("validation-failed", "GET", `/v1/regions?cursor=${"1".repeat(5000)}`);
      await app.refused("validation-failed", "GET", `/v1/models?cursor=${"a".repeat(5000)}`);
    }),
  );
});

describe("a filter", () => {
  const ids = (list: RegionList) => list.items.map(({ id }) => id);

  test(
    "by model, name, state and label finds those that agree with all of it",
    withApp(async (app) => {
      await app.register("llama");
      const a = await app.create({ name: "a", labels: { job: "nightly", gpu: "0" } });
      const b = await app.create({ name: "b", labels: { job: "nightly" } });
      const c = await app.create({ name: "a", model: "llama", labels: { job: "daily" } });
      await app.seal(b.id);
      for (const [query, found] of [
        ["", [a, b, c]],
        ["model=default", [a, b]],
        ["model=llama", [c]],
        ["name=a", [a, c]],
        ["name=a&model=llama", [c]],
        ["name=a&model=llama&state=sealed", []],
        ["name=nothing", []],
        ["state=open", [a, c]],
        ["state=sealed", [b]],
        ["state=deleted", []],
        ["label=job=nightly", [a, b]],
        ["label=job=nightly&state=open", [a]],
        ["label=gpu=0", [a]],
        ["label=job=", []],
        ["label=constructor=x", []],
      ] as const) {
        expect({ query, found: ids(await page(app, query)) }).toEqual({ query, found: found.map(({ id }) => id) });
      }
    }),
  );

  test(
    "by label takes the first = for the end of the key",
    withApp(async (app) => {
      const { id } = await app.create({ labels: { key: "a=b=c" } });
      expect(ids(await page(app, `label=${encodeURIComponent("key=a=b=c")}`))).toEqual([id]);
      for (const label of ["key", "=value", "", "k".repeat(600)]) {
        await app.refused("validation-failed", "GET", `/v1/regions?label=${encodeURIComponent(label)}`);
      }
    }),
  );

  test(
    "by state finds what drains, by name does not",
    withApp(async (app) => {
      const { id, storage } = await app.create({ name: "weights" });
      using _ = lease(storage.path);
      await app.remove(id);
      expect(ids(await page(app, "state=draining"))).toEqual([id]);
      expect(ids(await page(app, "name=weights"))).toEqual([]);
      expect(ids(await page(app, "name=weights&model=default"))).toEqual([]);
    }),
  );

  test(
    "by session finds what ends with it, page by page and with other filters, and nothing of others",
    withApp(async (app) => {
      await app.register("llama");
      const [first, second] = [await openSession(app), await openSession(app)];
      const a = await app.create({ name: "a", session: first.id });
      await app.create({ name: "b" });
      const other = await app.create({ name: "c", session: second.id });
      const d = await app.create({ name: "a", model: "llama", session: first.id });
      const { claim } = await claimName(app, first);
      const built = await app.create({ name: "weights", claim });
      const gone = await app.create({ session: first.id });
      using _ = lease(gone.storage.path);
      await app.remove(gone.id);
      const session = `session=${first.id}`;
      for (const [query, found] of [
        [session, [a, d, built]],
        [`session=${second.id}`, [other]],
        [`${session}&model=llama`, [d]],
        [`${session}&name=a`, [a, d]],
        [`${session}&name=c&model=default`, []],
        [`${session}&name=a&model=default`, [a]],
        [`${session}&state=sealed`, []],
      ] as const) {
        expect({ query, found: ids(await page(app, query)) }).toEqual({ query, found: found.map(({ id }) => id) });
      }
      expect(await all(app, `${session}&limit=1`)).toEqual([a, d, built].map(({ id }) => id));
      // Sealed, it is no longer its builder's.
      await app.seal(built.id);
      expect(await all(app, session)).toEqual([a, d].map(({ id }) => id));
      await endSession(app, first);
      for (const ended of [first.id, unknownSession]) {
        await app.refused("session-not-found", "GET", `/v1/regions?session=${ended}`);
      }
    }),
  );

  test(
    "by session looks through all regions where the session has more than a page may look at",
    withApp(async (app) => {
      const { id } = await openSession(app);
      const own = [await app.create({ session: id }), await app.create({ session: id })];
      await app.create();
      const { regions } = app.store.books.session(id);
      const [region] = regions;
      // Stand-ins that no index knows, so that only the way through the index misses them.
      const many = Array.from({ length: limits.listScan }, () => ({ ...region }) as typeof region);
      for (const one of many) if (one !== undefined) regions.add(one);
      const found = await all(app, `session=${id}&limit=1`);
      for (const one of many) if (one !== undefined) regions.delete(one);
      expect(found).toEqual(own.map((one) => one.id));
    }),
  );

  test(
    "that is none is refused",
    withApp(async (app) => {
      for (const query of [
        "state=gone",
        "model=a/b",
        "name=",
        "model=",
        "state=",
        `session=${unknownSession}${unknownSession}${unknownSession}`,
        `session=${unknownSession}&session=${unknownSession}`,
        "name=a&name=b",
        "limit=1&limit=2",
      ]) {
        await app.refused("validation-failed", "GET", `/v1/regions?${query}`);
      }
      await app.refused("model-not-found", "GET", "/v1/regions?model=nobody");
    }),
  );
});
