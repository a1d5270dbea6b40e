/** DELETE: the name goes at once, the bytes when nobody maps them, and asking again changes nothing. */

import { describe, expect, test } from "bun:test";
import { existsSync, linkSync, renameSync, unlinkSync, writeFileSync } from "node:fs";
import { hostOf } from "../../src/server/cli/pools.ts";
import { toCharge, until, withApp } from "../harness/app.ts";
import { tokenOf } from "../harness/instance.ts";
import { lease } from "./support/lease.ts";
import { idInState, slowBytes } from "./support/region-failures.ts";

describe("a deleted region", () => {
  test(
    "is gone at once if nobody maps it, whatever its state",
    withApp(async (app) => {
      const before = app.footprint();
      for (const isSealed of [false, true]) {
        const { id, storage } = await app.create({ name: "weights", byte_size: 10_000 });
        if (isSealed) await app.seal(id);
        expect(await app.remove(id)).toEqual({ state: "deleted", freed_bytes: toCharge(storage.byte_size) });
        expect(existsSync(storage.path)).toBeFalse();
        expect(app.footprint()).toEqual(before);
        await app.refused("region-not-found", "DELETE", `/v1/regions/${id}`);
      }
    }),
  );

  test(
    "drains while somebody maps it, says why, and is charged until then",
    withApp(async (app) => {
      const { id, storage } = await app.create({ name: "weights", byte_size: 10_000 });
      const charge = toCharge(storage.byte_size);
      {
        using _ = lease(storage.path);
        expect(await app.remove(id)).toEqual({ state: "draining", freed_bytes: 0 });
        expect(await app.get(id)).toMatchObject({
          state: "draining",
          name: null,
          in_use: true,
          drain: { reason: "request", waits_for: "lease" },
        });
        expect(hostOf(await app.stats())).toMatchObject({ used_bytes: 0, draining_bytes: charge });
        await app.refused("region-not-found", "GET", "/v1/models/default/regions/weights");
        expect(existsSync(storage.path)).toBeFalse();
      }
      await until("it is freed", async () => hostOf(await app.stats()).draining_bytes === 0);
      await app.refused("region-not-found", "GET", `/v1/regions/${id}`);
    }),
  );

  test("drains for somebody who had opened it and locked it just when its name went", async () => {
    let atWithdrawal = () => {};
    await withApp(
      async (app) => {
        const { id } = await app.create({ name: "weights" });
        using stack = new DisposableStack();
        const kept = `${app.shmDirectory}/tensord.${app.instance}/keep/${tokenOf(id)}`;
        atWithdrawal = () => {
          atWithdrawal = () => {};
          stack.use(lease(kept));
        };
        expect(await app.remove(id)).toEqual({ state: "draining", freed_bytes: 0 });
        expect(existsSync(kept)).toBeTrue();
      },
      { onStep: (step) => step === "delete.withdrawn" && atWithdrawal() },
    )();
  });

  test(
    "that drains stays as it is when it is deleted again",
    withApp(async (app) => {
      const { id, storage } = await app.create();
      using _ = lease(storage.path);
      await app.remove(id);
      const first = await app.get(id);
      for (let again = 0; again < 3; again++)
        expect(await app.remove(id)).toEqual({ state: "draining", freed_bytes: 0 });
      expect((await app.get(id)).revision).toBe(first.revision);
    }),
  );

  test(
    "drains as long as something else links its file",
    withApp(async (app) => {
      const { id, storage } = await app.create();
      const link = `${app.shmDirectory}/other-${app.instance}`;
      linkSync(storage.path, link);
      try {
        expect(await app.remove(id)).toEqual({ state: "draining", freed_bytes: 0 });
        expect(await app.get(id)).toMatchObject({ in_use: false, drain: { waits_for: "hard-link" } });
      } finally {
        unlinkSync(link);
      }
      await until("it is freed", async () => (await app.request("GET", `/v1/regions/${id}`)).status === 404);
    }),
  );

  test(
    "during its seal cancels the seal and is freed",
    withApp(async (app) => {
      const before = app.footprint();
      const { id } = await app.create({ byte_size: slowBytes, name: "weights" });
      const seal = app.request("POST", `/v1/regions/${id}/seal`, { checksum: true });
      expect(await idInState(app, "sealing")).toBe(id);
      await app.remove(id);
      expect((await seal).body).toMatchObject({ code: "cancelled" });
      await until("it is freed", () => Bun.deepEquals(app.footprint(), before));
    }),
  );

  test(
    "by many at once is deleted once",
    withApp(async (app) => {
      const { id, storage } = await app.create({ byte_size: slowBytes });
      const answers = await Promise.all(Array.from({ length: 10 }, () => app.request("DELETE", `/v1/regions/${id}`)));
      const freed = answers.map(({ body }) => (body as { freed_bytes?: number }).freed_bytes ?? 0);
      expect(freed.reduce((sum, bytes) => sum + bytes, 0)).toBe(toCharge(storage.byte_size));
      expect(hostOf(await app.stats())).toMatchObject({ used_bytes: 0, draining_bytes: 0 });
    }),
  );

  test("leaves a foreign file alone that took its public name", async () => {
    let beforeWithdrawal = () => {};
    await withApp(
      async (app) => {
        const { id, storage } = await app.create();
        beforeWithdrawal = () => {
          writeFileSync(`${storage.path}.foreign`, "not ours");
          renameSync(`${storage.path}.foreign`, storage.path);
        };
        expect((await app.remove(id)).state).toBe("deleted");
        expect(await Bun.file(storage.path).text()).toBe("not ours");
        unlinkSync(storage.path);
      },
      // From here on nobody renames over it any more.
      { onStep: (step) => step === "delete.journaled" && beforeWithdrawal() },
    )();
  });
});

describe("a public name", () => {
  test(
    "that was mended is looked at again, since a watch may tell once of what happened twice",
    withApp(async (app) => {
      const { id, storage } = await app.create();
      unlinkSync(storage.path);
      await app.get(id);
      expect(app.store.mending.size).toBe(1);
      await until("it was looked at", () => app.store.mending.size === 0);
      expect(existsSync(storage.path)).toBeTrue();
    }),
  );

  test(
    "that is gone for good, and the file with it, is asked for in vain, by name as by id",
    withApp(async (app) => {
      for (const [name, way] of [
        ["first", (_: string) => "/v1/models/default/regions/first"],
        ["second", (id: string) => `/v1/regions/${id}`],
      ] as const) {
        const { id, storage } = await app.create({ name });
        unlinkSync(`/dev/shm/tensord.${app.instance}/keep/${id.slice("reg_".length)}`);
        unlinkSync(storage.path);
        // Not "refused", which wants nothing changed: the look itself finds that it is lost.
        expect((await app.request("GET", way(id))).body).toMatchObject({ status: 404, code: "region-not-found" });
      }
    }),
  );

  test(
    "that somebody removed is back when the region is asked for",
    withApp(async (app) => {
      const { id, storage } = await app.create({ name: "weights" });
      for (const path of [`/v1/regions/${id}`, "/v1/models/default/regions/weights"]) {
        unlinkSync(storage.path);
        await app.ok(200, "GET", path);
        expect(existsSync(storage.path)).toBeTrue();
      }
    }),
  );
});
