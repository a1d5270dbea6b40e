/** Versions of a name stand side by side; the name alone means the newest that is sealed, or, where none is, the newest. */

import { afterAll, describe, expect, test } from "bun:test";
import type { Region, RegionList } from "../harness/answers.ts";
import { type TestApp, withApp } from "../harness/app.ts";
import { LentApps } from "../harness/lent-app.ts";
import { Clock } from "./support/clock.ts";
import { openSession } from "./support/sessions.ts";

const apps = new LentApps();
afterAll(() => apps.end());

const path = "/v1/models/default/regions/weights";
const create = (app: TestApp, version: string, more: object = {}) =>
  app.create({ name: "weights", version, ttl_ms: 60_000, ...more });
const find = async (app: TestApp, query = "") => await app.ok<Region>(200, "GET", `${path}${query}`);
const idOf = async (app: TestApp, query?: string) => (await find(app, query)).id;

describe("versions of a name", () => {
  test(
    "stand side by side, and each is found by its version",
    apps.with(async (app) => {
      const plain = await app.create({ name: "weights", ttl_ms: 60_000 });
      const [first, second] = [await create(app, "1"), await create(app, "2.0_b-c")];
      expect([plain, first, second].map(({ version }) => version)).toEqual(["", "1", "2.0_b-c"]);
      expect(await idOf(app, "?version=")).toBe(plain.id);
      expect(await idOf(app, "?version=1")).toBe(first.id);
      expect(await idOf(app, "?version=2.0_b-c")).toBe(second.id);
      const { detail } = await app.refused("region-not-found", "GET", `${path}?version=3`);
      expect(detail).toContain('version "3" of the name');
    }),
  );

  test(
    "are one name each: the same version again is taken, attached to, or replaced",
    apps.with(async (app) => {
      const first = await create(app, "1");
      const other = await create(app, "2");
      expect(
        await app.refused("name-taken", "POST", "/v1/regions", {
          ...{ name: "weights", version: "1", byte_size: 64, ttl_ms: 60_000 },
        }),
      ).toMatchObject({ region: first.id, detail: expect.stringContaining("(default/weights, version 1)") });
      const attached = await app.request("POST", "/v1/regions", {
        ...{ name: "weights", version: "1", byte_size: 64, ttl_ms: 60_000, if_exists: "attach" },
      });
      expect(attached).toMatchObject({ status: 200, body: { id: first.id } });
      const next = await create(app, "1", { if_exists: "replace" });
      expect(next).toMatchObject({ name: null, pending_name: "weights", version: "1" });
      await app.seal(next.id);
      expect([await idOf(app, "?version=1"), await idOf(app, "?version=2")]).toEqual([next.id, other.id]);
    }),
  );

  test(
    "without a sealed one, the name alone means the newest",
    apps.with(async (app) => {
      const first = await create(app, "1");
      expect(await idOf(app)).toBe(first.id);
      const second = await create(app, "2");
      expect(await idOf(app)).toBe(second.id);
      await app.remove(second.id);
      expect(await idOf(app)).toBe(first.id);
    }),
  );

  test(
    "the name alone means the one that was sealed last, whatever was made later",
    apps.with(async (app) => {
      using clock = new Clock();
      const [first, second, third] = [await create(app, "1"), await create(app, "2"), await create(app, "3")];
      await app.seal(second.id);
      expect(await idOf(app)).toBe(second.id);
      clock.advance(1);
      await app.seal(first.id);
      expect(await idOf(app)).toBe(first.id);
      expect(third.state).toBe("open");
      await app.remove(first.id);
      expect(await idOf(app)).toBe(second.id);
    }),
  );

  test(
    "a wait for the name alone ends with any version that is sealed, one for a version with that one",
    apps.with(async (app) => {
      const wait = { headers: { prefer: "wait=30" } };
      const any = app.request("GET", path, undefined, wait);
      const exact = app.request("GET", `${path}?version=2`, undefined, wait);
      const first = await create(app, "1");
      await app.seal(first.id);
      expect(await any).toMatchObject({ status: 200, body: { id: first.id, state: "sealed" } });
      const second = await create(app, "2");
      await app.seal(second.id);
      expect(await exact).toMatchObject({ status: 200, body: { id: second.id } });
    }),
  );

  test(
    "are listed by name, all of them or one",
    apps.with(async (app) => {
      const made = [await create(app, "2"), await create(app, "1"), await app.create({ name: "other" })];
      const list = async (query: string) =>
        (await app.ok<RegionList>(200, "GET", `/v1/regions?model=default&${query}`)).items.map(({ id }) => id);
      expect(await list("name=weights")).toEqual([made[0]?.id ?? "", made[1]?.id ?? ""]);
      expect(await list("name=weights&version=1")).toEqual([made[1]?.id ?? ""]);
    }),
  );

  for (const method of ["PATCH", "DELETE"]) {
    const body = method === "PATCH" ? { labels: { a: "b" } } : undefined;
    const revisions = async (app: TestApp) =>
      new Map((await app.ok<RegionList>(200, "GET", "/v1/regions")).items.map(({ id, revision }) => [id, revision]));
    /** The regions that the request changed or ended. */
    const hit = async (app: TestApp, query = "") => {
      const before = await revisions(app);
      await app.ok(200, method, `${path}${query}`, body);
      const after = await revisions(app);
      return [...before].filter(([id, revision]) => after.get(id) !== revision).map(([id]) => id);
    };

    test(
      `without a version let ${method} hit the newest that is sealed and nothing else, with one that one`,
      apps.with(async (app) => {
        using clock = new Clock();
        const [first, second, third] = [await create(app, "1"), await create(app, "2"), await create(app, "3")];
        await app.create({ name: "other" });
        await app.seal(second.id);
        clock.advance(1);
        await app.seal(first.id);
        expect(await hit(app)).toEqual([first.id]);
        expect(await hit(app, "?version=3")).toEqual([third.id]);
        expect(await hit(app, "?version=2")).toEqual([second.id]);
      }),
    );

    test(
      `of which none is sealed let ${method} hit the newest, or the one whose version is empty`,
      apps.with(async (app) => {
        const [plain, , newest] = [await create(app, ""), await create(app, "1"), await create(app, "2")];
        expect(await hit(app)).toEqual([newest.id]);
        expect(await hit(app, "?version=")).toEqual([plain.id]);
      }),
    );

    test(
      `do not let ${method} hit a replacement before its seal`,
      apps.with(async (app) => {
        const holder = await create(app, "1");
        const next = await create(app, "1", { if_exists: "replace" });
        expect(await hit(app)).toEqual([holder.id]);
        expect(await app.get(next.id)).toMatchObject({ pending_name: "weights", revision: 1 });
      }),
    );

    test(
      `are not there for ${method} if nobody has them, and it says which`,
      // How a region ended is told for a while: the app has seen none but these.
      withApp(async (app) => {
        await app.seal((await create(app, "1")).id);
        const absent = 'Cannot find region "weights" of model "default": nobody has';
        const exact = await app.refused("region-not-found", method, `${path}?version=2`, body);
        expect(exact.detail).toBe(`${absent} version "2" of the name`);
        expect(await hit(app)).toHaveLength(1);
        if (method === "PATCH") await app.remove(await idOf(app));
        const { detail } = await app.refused("region-not-found", method, path, body);
        expect(detail).toMatch(/nobody has the name; the last that had it was deleted by request \d+ s ago$/);
      }),
    );
  }

  test(
    "are claimed each for itself; the name alone gets what there is",
    apps.with(async (app) => {
      const { id: session } = await openSession(app);
      const claim = (body: object) =>
        app.ok<{ role: string; claim: string; region: Region | null }>(200, "POST", `${path}/claim`, {
          session,
          ...body,
        });
      const first = await claim({ version: "1" });
      const second = await claim({ version: "2" });
      expect([first.role, second.role]).toEqual(["builder", "builder"]);
      await app.refused("name-claimed", "POST", "/v1/regions", {
        ...{ name: "weights", version: "1", byte_size: 64, ttl_ms: 60_000 },
      });
      const built = await create(app, "1", { claim: first.claim });
      await app.seal(built.id);
      expect(await claim({})).toMatchObject({ role: "reader", region: { id: built.id } });
      expect(await claim({ version: "1" })).toMatchObject({ role: "reader", region: { id: built.id } });
      await app.ok(200, "DELETE", `${path}/claim?claim=${second.claim}&version=2`);
      expect((await claim({ version: "2" })).role).toBe("builder");
    }),
  );

  test(
    "need a name, and are written like one",
    apps.with(async (app) => {
      await app.refused("validation-failed", "POST", "/v1/regions", { version: "1", byte_size: 1, ttl_ms: 1000 });
      for (const version of ["a/b", "a b", "é", "x".repeat(129)]) {
        await app.refused("validation-failed", "POST", "/v1/regions", {
          ...{ name: "weights", version, byte_size: 1, ttl_ms: 1000 },
        });
      }
    }),
  );
});
