/** Private regions: they have no name that others could open, and everything else that a region has. */

import { describe, expect, test } from "bun:test";
import { statSync } from "node:fs";
import { type TestApp, withApp } from "../harness/app.ts";
import { readBytes, writeBytes } from "./support/data-requests.ts";

/** The file of the only region, as it lies in the keeper. */
function onlyFile(app: TestApp): string {
  const [file = "", ...more] = app.files().filter((name) => name !== `tensord.${app.instance}`);
  expect(more).toEqual([]);
  return `${app.shmDirectory}/${file}`;
}

describe("a private region", () => {
  test(
    "has a file in the keeper alone, which no other uid may open, before its seal and after",
    withApp(async (app) => {
      const region = await app.create({ private: true, name: "weights" });
      expect(region.storage).toMatchObject({ kind: "shm", private: true, path: null, shm_name: null });
      const file = onlyFile(app);
      expect(file).toEndWith(`/keep/${region.id.slice(4)}.private`);
      expect(statSync(file).mode & 0o7777).toBe(0o600);
      await app.seal(region.id);
      expect(statSync(file).mode & 0o7777).toBe(0o1400);
      expect(await app.remove(region.id)).toMatchObject({ state: "deleted" });
      expect(app.files()).toEqual([`tensord.${app.instance}`]);
    }),
  );

  test(
    "is found by its name, read and written over HTTP like any other",
    withApp(async (app) => {
      const { id } = await app.create({ private: true, name: "weights" });
      expect(await app.ok(200, "GET", "/v1/models/default/regions/weights")).toMatchObject({ id });
      expect(await writeBytes(app, id, new Uint8Array(64).fill(3))).toMatchObject({ status: 200 });
      expect((await readBytes(app, id)).bytes).toEqual(Buffer.alloc(64, 3));
      expect(await app.ok(200, "GET", "/v1/regions")).toMatchObject({ items: [{ id, storage: { private: true } }] });
    }),
  );

  test(
    "is not left writable for stock readers, who could not open it",
    withApp(async (app) => {
      const { id } = await app.create({ private: true });
      const { detail } = await app.refused("validation-failed", "POST", `/v1/regions/${id}/seal`, {
        stock_writable: true,
      });
      expect(detail).toContain("it has no name by which they could open it");
      expect(await app.get(id)).toMatchObject({ state: "open" });
    }),
  );

  test(
    "is what a region in memfd storage is anyway, asked for or not",
    withApp(async (app) => {
      for (const more of [{}, { private: true }, { private: false }]) {
        const region = await app.create({ storage: "memfd", ...more });
        expect(region.storage).toMatchObject({ kind: "memfd", private: true });
      }
      expect((await app.create({ private: false })).storage).toMatchObject({ kind: "shm", private: false });
    }),
  );

  test(
    "is not what a region with a name is: who asks for it by the name of one is not given that",
    withApp(async (app) => {
      const { id } = await app.create({ name: "weights" });
      const attach = { name: "weights", byte_size: 64, ttl_ms: 60_000, if_exists: "attach" };
      for (const wish of [{ private: true }, { storage: "memfd" }]) {
        const { detail } = await app.refused("name-taken", "POST", "/v1/regions", { ...attach, ...wish });
        expect(detail).toContain("holds it in shm storage, want ");
      }
      for (const wish of [{}, { private: false }, { storage: "shm" }]) {
        expect(await app.ok(200, "POST", "/v1/regions", { ...attach, ...wish })).toMatchObject({ id });
      }
    }),
  );

  test(
    "takes a name over from one that is not, and the other way round",
    withApp(async (app) => {
      const named = await app.create({ name: "weights" });
      const next = await app.create({ name: "weights", private: true, if_exists: "replace" });
      await app.seal(next.id);
      await app.refused("region-not-found", "GET", `/v1/regions/${named.id}`);
      expect(app.files().filter((name) => name.includes("/new/") || !name.includes("/"))).toEqual([
        `tensord.${app.instance}`,
      ]);
      const last = await app.create({ name: "weights", if_exists: "replace" });
      const { storage } = await app.seal(last.id);
      expect(statSync(storage.path).mode & 0o7777).toBe(0o1540);
    }),
  );
});
