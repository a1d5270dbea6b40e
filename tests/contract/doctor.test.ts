/** `/v1/doctor`: what a server finds by itself, over its own books. What only a process can meet is in tests/integration. */

import { describe, expect, test } from "bun:test";
import { linkSync, rmSync, statSync, writeFileSync } from "node:fs";
import type { z } from "@hono/zod-openapi";
import { MiB } from "../../src/memory/limits.ts";
import type * as hosts from "../../src/routes/schemas/host.ts";
import { type TestApp, until, withApp } from "../harness/app.ts";
import { bar, lease } from "./support/lease.ts";
import { noMountBecause, SmallTmpfs, smallTmpfsBytes } from "./support/small-tmpfs.ts";

type Diagnosis = z.infer<typeof hosts.Diagnosis>;

const diagnose = (app: TestApp) => app.ok<Diagnosis>(200, "GET", "/v1/doctor");

async function findingOf(app: TestApp, check: string) {
  const finding = (await diagnose(app)).findings.find((one) => one.check === check);
  if (finding === undefined) throw new Error(`no finding of ${check}`);
  return finding;
}

describe("the diagnosis", () => {
  test(
    "has each check once, and is ok exactly if no finding is an error",
    withApp(async (app) => {
      const { ok, findings } = await diagnose(app);
      const checks = findings.map(({ check }) => check);
      expect(checks.length).toBeGreaterThan(14);
      expect(new Set(checks).size).toBe(checks.length);
      expect(ok).toBe(findings.every(({ status }) => status !== "error"));
      for (const { status, cure } of findings) expect(cure === null).toBe(status === "ok");
    }),
  );

  test(
    "is one for all who ask at once",
    withApp(async (app) => {
      const [first, ...others] = await Promise.all(Array.from({ length: 8 }, () => diagnose(app)));
      for (const other of others) expect(other).toEqual(first as Diagnosis);
      // Whoever asks later has a look of its own, at a machine on which others work too.
      const later = await diagnose(app);
      expect(later.findings.map(({ check }) => check)).toEqual((first as Diagnosis).findings.map(({ check }) => check));
    }),
  );

  test(
    "calls no region of its own foreign, draining ones neither",
    withApp(async (app) => {
      const regions = await Promise.all(Array.from({ length: 5 }, () => app.create({ byte_size: 2 * MiB })));
      using _ = lease(regions[0]?.storage.path ?? "");
      await app.remove(regions[0]?.id ?? "");
      const { summary } = await findingOf(app, "foreign-files");
      expect(summary).not.toContain(app.instance);
    }),
  );

  test(
    "tells who keeps a draining region: a lease, or a link outside",
    withApp(async (app) => {
      expect((await findingOf(app, "draining")).summary).toBe("No region drains.");
      const [leased, linked] = [await app.create(), await app.create({ byte_size: 8192 })];
      const outside = `/dev/shm/${app.instance}-link`;
      const { ino } = statSync(linked.storage.path);
      linkSync(linked.storage.path, outside);
      using held = new DisposableStack();
      held.use(lease(leased.storage.path));
      try {
        await app.remove(leased.id);
        await app.remove(linked.id);
        const finding = await findingOf(app, "draining");
        expect(finding.status).toBe("warning");
        expect(finding.summary).toContain("2 regions (20 KiB) drain");
        expect(finding.summary).toMatch(new RegExp(`${leased.id}, [\\d.]+ KiB, for \\d+ s: a process maps it`));
        expect(finding.summary).toMatch(
          new RegExp(`${linked.id}, [\\d.]+ KiB, for \\d+ s: its file is linked elsewhere \\(inode ${ino}, 2 links\\)`),
        );
        expect(finding.cure).toContain("find -xdev -inum");
      } finally {
        rmSync(outside);
      }
      held.dispose();
      await until("all is freed", async () => (await app.stats()).regions.draining === 0);
      expect((await findingOf(app, "draining")).status).toBe("ok");
    }),
  );

  test(
    "tells which region's leases a process bars",
    withApp(async (app) => {
      const { id, storage } = await app.create({ name: "weights" });
      expect(await findingOf(app, "barred-leases")).toMatchObject({ status: "ok" });
      {
        using _ = bar(storage.path);
        await app.seal(id);
        const { ino } = statSync(storage.path);
        const { status, summary } = await findingOf(app, "barred-leases");
        expect(status).toBe("warning");
        expect(summary).toContain(`of 1 region: ${id} (default/weights) (inode ${ino})`);
        expect(await app.get(id)).toMatchObject({ lease_barred: true, in_use: true, unknown_holders: false });
      }
      expect(await app.get(id)).toMatchObject({ lease_barred: false, in_use: false });
      expect(await findingOf(app, "barred-leases")).toMatchObject({ status: "ok" });
    }),
  );

  test(
    "finds a draining region behind many that do not",
    withApp(async (app) => {
      for (let count = 0; count < 600; count++) await app.create();
      const leased = await app.create();
      using _ = lease(leased.storage.path);
      await app.remove(leased.id);
      expect((await findingOf(app, "draining")).summary).toContain(leased.id);
    }),
  );
});

describe(`in a small file system (${noMountBecause ?? "a tmpfs"})`, () => {
  const testSmall = test.skipIf(noMountBecause !== undefined);
  const small = async (use: (app: TestApp, tmpfs: SmallTmpfs) => Promise<void>) => {
    using tmpfs = new SmallTmpfs(2000);
    await withApp((app) => use(app, tmpfs), { shmDirectory: tmpfs.path, memoryLimitBytes: smallTmpfsBytes })();
  };

  testSmall("the diagnosis tells its size, and that it is full, and works all the same", () =>
    small(async (app, tmpfs) => {
      const size = await findingOf(app, "shm-size");
      expect(size).toMatchObject({ status: "error", summary: expect.stringContaining("24 MiB in all") });
      expect(size.cure).toContain("--shm-size");
      expect((await findingOf(app, "shm-space")).status).toBe("ok");
      tmpfs.fill();
      const space = await findingOf(app, "shm-space");
      expect(space).toMatchObject({ status: "error", summary: "0 B of the file system are free (0 %)." });
      expect(space.cure).toContain("tensord rm");
      tmpfs.drain();
      expect((await findingOf(app, "shm-space")).status).toBe("ok");
    }),
  );

  testSmall("the diagnosis tells that inodes run out", () =>
    small(async (app, tmpfs) => {
      tmpfs.fillInodes(50);
      expect(await findingOf(app, "inodes")).toMatchObject({
        status: "warning",
        summary: "50 inodes of the file system are free (2 %).",
        cure: expect.stringContaining("nr_inodes"),
      });
      tmpfs.fillInodes(1);
      expect((await findingOf(app, "inodes")).status).toBe("error");
      tmpfs.drain();
    }),
  );

  testSmall("the diagnosis finds a foreign file that has the name of a region", () =>
    small(async (app, tmpfs) => {
      const path = `${tmpfs.path}/tensord.${app.instance}.${"a".repeat(26)}`;
      writeFileSync(path, Buffer.alloc(4 * MiB, 1));
      expect(await findingOf(app, "foreign-files")).toMatchObject({
        status: "warning",
        summary: expect.stringContaining(`4 MiB of ${tmpfs.path} are in 1 file of others: uid 0 4 MiB in 1 file.`),
        cure: expect.stringContaining("remove those that nobody uses"),
      });
      rmSync(path);
    }),
  );
});
