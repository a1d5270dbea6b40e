/** Regions in `memfd` storage over HTTP: what is different where nothing has a name, and what the kernel itself refuses. */

import { afterAll, describe, expect, test } from "bun:test";
import { closeSync, openSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { listHugePageBytes } from "../../src/memory/host/memory-space.ts";
import { limits, MiB } from "../../src/memory/limits.ts";
import { hasSeal } from "../../src/memory/os/libc-memory.ts";
import { hugePageBytes } from "../../src/memory/storage/storage.ts";
import { hostOf } from "../../src/server/cli/pools.ts";
import type { Region } from "../harness/answers.ts";
import { type TestApp, toCharge, until, withApp } from "../harness/app.ts";
import { LentApps } from "../harness/lent-app.ts";
import { findMemfd, memfdPath } from "../harness/memfd.ts";
import { descriptorsOf } from "../harness/open-files.ts";
import { readBytes, writeBytes } from "./support/data-requests.ts";
import { lease } from "./support/lease.ts";
import { mapForWriting } from "./support/mapping.ts";
import { noMountBecause, SmallTmpfs, smallTmpfsBytes } from "./support/small-tmpfs.ts";

const apps = new LentApps();
afterAll(() => apps.end());

const create = (app: TestApp, more: object = {}) => app.create({ storage: "memfd", name: "weights", ...more });

/** The mode of its file, and which changes of it the kernel refuses. */
function look(region: Region): { mode: number; shrink: boolean; grow: boolean; write: boolean } {
  const fd = openSync(memfdPath(region), "r");
  try {
    const [shrink, grow, write] = (["shrink", "grow", "write"] as const).map((seal) => hasSeal(fd, seal));
    const mode = statSync(memfdPath(region)).mode & 0o7777;
    return { mode, shrink: shrink === true, grow: grow === true, write: write === true };
  } finally {
    closeSync(fd);
  }
}

async function readEvents(app: TestApp): Promise<{ type: string; data: Record<string, unknown> }[]> {
  const { items } = await app.ok<{ items: { type: string; data: Record<string, unknown> }[] }>(
    200,
    "GET",
    "/v1/events",
  );
  return items;
}

describe("a region in memfd storage", () => {
  test.skipIf(noMountBecause !== undefined)(
    `is nothing that others have in the file system (${noMountBecause ?? "a tmpfs of its own"})`,
    async () => {
      using tmpfs = new SmallTmpfs();
      await withApp(
        async (app) => {
          await create(app, { byte_size: 3 * MiB });
          writeFileSync(join(tmpfs.path, "strangers"), Buffer.alloc(5 * MiB));
          const { used_bytes, unaccounted_bytes } = hostOf(await app.stats());
          expect(used_bytes).toBe(toCharge(3 * MiB + 4096));
          expect(Math.floor((unaccounted_bytes ?? Number.NaN) / MiB)).toBe(5);
        },
        { shmDirectory: tmpfs.path, memoryLimitBytes: smallTmpfsBytes },
      )();
    },
  );

  test(
    "leaves no file anywhere, can neither shrink nor grow from its birth, and is written until it is sealed",
    withApp(async (app) => {
      const before = app.files();
      const region = await create(app);
      expect(app.files()).toEqual(before);
      expect(look(region)).toEqual({ mode: 0o600, shrink: true, grow: true, write: false });
      await app.seal(region.id);
      expect(look(region)).toEqual({ mode: 0o1400, shrink: true, grow: true, write: true });
    }),
  );

  test(
    "is told like any other: with its kind, an identity that its file has, and no path",
    withApp(async (app) => {
      const region = await create(app);
      const { dev, ino } = statSync(memfdPath(region), { bigint: true });
      const storage = { kind: "memfd", private: true, huge_pages: null, path: null, shm_name: null };
      expect(region.storage).toMatchObject({ ...storage, dev: String(dev), ino: String(ino), page_size: 4096 });
      await app.seal(region.id);
      await app.remove(region.id);
      const events = (await readEvents(app)).filter(({ type }) => type.startsWith("tensord.region."));
      const told = ["allocated", "sealed", "draining", "deleted"].map((what) => `tensord.region.${what}`);
      expect(events.map(({ type }) => type)).toEqual(told);
      for (const { data } of events) expect(data).toMatchObject({ id: region.id, storage });
    }),
  );

  test(
    "is charged to the same pool, model and session",
    withApp(async (app) => {
      const session = await app.ok<{ id: string }>(201, "POST", "/v1/sessions", {
        quota_bytes: 4 * MiB,
        ttl_ms: 600_000,
      });
      const region = await create(app, { byte_size: 3 * MiB, session: session.id });
      const charge = toCharge(region.storage.byte_size);
      expect(hostOf(await app.stats()).used_bytes).toBe(charge);
      expect(await app.ok(200, "GET", `/v1/sessions/${session.id}`)).toMatchObject({ used_bytes: charge });
      await app.refused("session-quota-exceeded", "POST", "/v1/regions", {
        ...{ storage: "memfd", byte_size: 2 * MiB, session: session.id },
      });
      await app.remove(region.id);
      expect(findMemfd(region.id.slice(4))).toBeUndefined();
      expect(hostOf(await app.stats()).used_bytes).toBe(0);
    }),
  );

  test(
    "brings and takes bytes over HTTP, by tensor, alias and range, small and large",
    withApp(async (app) => {
      const count = limits.downloadCopyBytes + 4096;
      const tensors = [
        { name: "w", dtype: "U8", shape: [count] },
        { name: "tied", dtype: "U8", shape: [16], alias_of: "w", alias_byte_offset: 32 },
        ...Array.from({ length: 3000 }, (_, index) => ({ name: `layers.${index}.bias`, dtype: "U8", shape: [4] })),
      ];
      const region = await create(app, { tensors });
      const data = Buffer.alloc(count).map((_, index) => index % 251);
      expect(await writeBytes(app, region.id, data, { tensor: "w" })).toMatchObject({ status: 200 });
      const last = { tensor: "layers.2999.bias", headers: { "content-length": "4" } };
      expect(await writeBytes(app, region.id, Buffer.from("last"), last)).toMatchObject({ status: 200 });
      await app.seal(region.id, { checksum: true });
      expect(await app.verify(region.id)).toMatchObject({ ok: true });
      expect((await readBytes(app, region.id, { tensor: "w" })).bytes.equals(data)).toBeTrue();
      expect((await readBytes(app, region.id, { tensor: "tied" })).bytes.equals(data.subarray(32, 48))).toBeTrue();
      expect((await readBytes(app, region.id, { tensor: "layers.2999.bias" })).bytes.toString()).toBe("last");
      await until("the download has ended", async () => !(await app.get(region.id)).in_use);
      expect(await app.remove(region.id)).toMatchObject({ state: "deleted" });
    }),
  );

  test(
    "is left alone by whoever writes it without a lock: the seal says so, and stands once that map is gone",
    apps.with(async (app) => {
      const [silent, other] = [await create(app), await create(app, { name: "other" })];
      {
        using _ = mapForWriting(memfdPath(silent));
        const problem = await app.refused("region-has-writers", "POST", `/v1/regions/${silent.id}/seal`);
        expect(problem.region).toBe(silent.id);
        expect(look(silent)).toMatchObject({ mode: 0o600, write: false });
        // Of a group, too; what the kernel had made final by then is sealed at the next try, and written by nobody.
        const regions = [{ region: other.id }, { region: silent.id }];
        await app.refused("region-has-writers", "POST", "/v1/seal", { regions });
        expect(await app.get(other.id)).toMatchObject({ state: "open" });
        const refusal = await writeBytes(app, other.id, new Uint8Array(64));
        expect(refusal.body).toMatchObject({ code: "region-sealed", errno: "EPERM" });
      }
      expect(() => mapForWriting(memfdPath(other))).toThrow("the kernel refuses");
      for (const { id } of [silent, other]) expect(await app.seal(id)).toMatchObject({ state: "sealed" });
    }),
  );

  test(
    "is not sealed for stock readers, who open names: it stays open, and is told why",
    apps.with(async (app) => {
      const region = await create(app);
      const { detail, hint } = await app.refused("validation-failed", "POST", `/v1/regions/${region.id}/seal`, {
        stock_writable: true,
      });
      expect(detail).toContain("it has no name by which they could open it");
      expect(hint).toContain("stock_writable");
      expect(look(region)).toMatchObject({ mode: 0o600, write: false });
      expect(await app.seal(region.id)).toMatchObject({ state: "sealed" });
    }),
  );

  test(
    "is refused with the numbers where memory is short, and leaves nothing",
    withApp(async (app) => {
      const { detail } = await app.refused("pool-full", "POST", "/v1/regions", {
        ...{ storage: "memfd", byte_size: 1024 * MiB, ttl_ms: 1000 },
      });
      expect(detail).toContain("536870912");
      expect(descriptorsOf("self").filter((link) => link.startsWith(`/memfd:tensord.${app.instance}.`))).toEqual([]);
    }),
  );

  test(
    "drains while it is leased, and is known by its leases alone",
    apps.with(async (app) => {
      const region = await create(app, { linger_ms: 0 });
      {
        using _ = lease(memfdPath(region), "write");
        expect(await app.get(region.id)).toMatchObject({ in_use: true, has_writers: true, unknown_holders: true });
        await app.refused("region-has-writers", "POST", `/v1/regions/${region.id}/seal`);
        expect(await app.remove(region.id)).toMatchObject({ state: "draining" });
      }
      await until("it is freed", () => findMemfd(region.id.slice(4)) === undefined);
    }),
  );
});

describe("huge pages", () => {
  test(
    "are had in memfd storage alone, and by no other word than a size that Linux has",
    apps.with(async (app) => {
      const body = { byte_size: 1, ttl_ms: 1000 };
      const { detail } = await app.refused("validation-failed", "POST", "/v1/regions", { ...body, huge_pages: "2MiB" });
      expect(detail).toContain("the storage is shm, want memfd");
      for (const word of ["3MiB", "2mib", "", "yes"]) {
        await app.refused("validation-failed", "POST", "/v1/regions", { ...body, storage: "memfd", huge_pages: word });
      }
    }),
  );

  test(
    "that the host does not have, or has not reserved, are refused with the reason and never replaced by small ones",
    apps.with(async (app) => {
      const { huge_pages: there } = await app.ok<{ huge_pages: { page_size: number; free_bytes: number }[] }>(
        ...([200, "GET", "/v1/capabilities"] as const),
      );
      expect(there.map(({ page_size }) => page_size).toSorted()).toEqual(listHugePageBytes().toSorted());
      for (const [word, pageBytes] of Object.entries(hugePageBytes)) {
        const body = { storage: "memfd", huge_pages: word, ttl_ms: 1000 };
        const known = there.find(({ page_size }) => page_size === pageBytes);
        if (known === undefined) {
          const { detail } = await app.refused("storage-unavailable", "POST", "/v1/regions", { ...body, byte_size: 1 });
          expect(detail).toContain(`Cannot take pages of ${word}`);
        } else if (known.free_bytes === 0 && pageBytes < 512 * MiB) {
          const { detail, hint } = await app.refused("out-of-shared-memory", "POST", "/v1/regions", {
            ...{ ...body, byte_size: 1 },
          });
          expect(detail).toContain(`in pages of ${word}: 0 bytes are free`);
          expect(hint).toContain("nr_hugepages");
        }
      }
    }),
  );
});
