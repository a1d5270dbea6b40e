/**
 * The current mark, by which a client knows without a question that a name alone still means the region that it was told of, as it was
 * told: on from the seal, off before what makes it untrue is answered, and never on again.
 */

import { describe, expect, test } from "bun:test";
import { statSync } from "node:fs";
import { type TestApp, withApp } from "../harness/app.ts";
import { currentMark } from "../harness/instance-content.ts";
import type { Region } from "../harness/server-api.ts";

const isMarked = ({ storage }: Region) => (statSync(storage.path).mode & currentMark) !== 0;

async function makeVersion(app: TestApp, version: string, more: object = {}): Promise<Region> {
  const { id } = await app.create({ name: "weights", version, ...more });
  return await app.seal(id);
}

describe("the current mark", () => {
  test(
    "is on a sealed region, stock-writable or not, and on no open one",
    withApp(async (app) => {
      const open = await app.create({ name: "weights" });
      expect(isMarked(open)).toBeFalse();
      const sealed = await app.seal(open.id);
      expect(isMarked(sealed)).toBeTrue();
      const { id } = await app.create();
      expect(isMarked(await app.seal(id, { stock_writable: true }))).toBeTrue();
    }),
  );

  test(
    "goes from a version once a newer one is sealed, not before, and does not come back when that is deleted",
    withApp(async (app) => {
      const first = await makeVersion(app, "1");
      const next = await app.create({ name: "weights", version: "2" });
      expect(isMarked(first)).toBeTrue();
      await app.seal(next.id);
      expect([first, next].map(isMarked)).toEqual([false, true]);
      await app.request("DELETE", `/v1/regions/${next.id}`);
      expect(isMarked(first)).toBeFalse();
    }),
  );

  test(
    "goes from a version beside the one that is replaced",
    withApp(async (app) => {
      const first = await makeVersion(app, "1");
      await makeVersion(app, "2");
      const last = await makeVersion(app, "1b");
      const replaced = await makeVersion(app, "2", { if_exists: "replace" });
      expect([first, last, replaced].map(isMarked)).toEqual([false, false, true]);
    }),
  );

  test(
    "goes from all versions before those that a group seals",
    withApp(async (app) => {
      const names = ["a", "b", "c"];
      const make = (version: string) => Promise.all(names.map((name) => app.create({ name, version })));
      const seal = async (regions: readonly Region[]) => {
        const body = { regions: regions.map(({ id }) => ({ region: id })) };
        expect((await app.request("POST", "/v1/seal", body)).status).toBe(200);
      };
      const [first, next] = [await make("1"), await make("2")];
      await seal(first);
      expect(first.map(isMarked)).toEqual([true, true, true]);
      await seal(next);
      expect([...first, ...next].map(isMarked)).toEqual([false, false, false, true, true, true]);
    }),
  );

  test(
    "goes from a version beside a copy that is sealed from its birth",
    withApp(async (app) => {
      const first = await makeVersion(app, "1");
      const other = await app.create();
      await app.seal(other.id);
      const headers = { prefer: "wait=60" };
      const body = { name: "weights", version: "2", ttl_ms: 60_000 };
      await app.ok(200, "POST", `/v1/regions/${other.id}/copy`, body, { headers });
      expect(isMarked(first)).toBeFalse();
    }),
  );

  test(
    "goes with a change, and with a longer life that an attach asks for",
    withApp(async (app) => {
      const changed = await makeVersion(app, "");
      await app.request("PATCH", `/v1/regions/${changed.id}`, { labels: { step: "2" } });
      expect(isMarked(changed)).toBeFalse();
      const request = { name: "longer", ttl_ms: 60_000, if_exists: "attach" } as const;
      const { id } = await app.create(request);
      const longer = await app.seal(id);
      await app.ok(200, "POST", "/v1/regions", { ...request, byte_size: 64, ttl_ms: 120_000 });
      expect(isMarked(longer)).toBeFalse();
    }),
  );

  test(
    "stays where a look or a fetch by name changes nothing",
    withApp(async (app) => {
      const region = await makeVersion(app, "1");
      const path = "/v1/models/default/regions/weights";
      await app.request("GET", path);
      await app.request("GET", path, undefined, { headers: { prefer: "attach" } });
      expect(isMarked(region)).toBeTrue();
    }),
  );
});
