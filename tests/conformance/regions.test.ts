/**
 * Operations on regions know no kind of storage: a region's whole life in one that no line of them was written for, a
 * stand-in without public names beside the server's own.
 */

import { expect, test } from "bun:test";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Eviction } from "../../src/server/cli/answers.ts";
import { hostOf } from "../../src/server/cli/pools.ts";
import { lease } from "../contract/support/lease.ts";
import type { Deletion, Region } from "../harness/answers.ts";
import { TestApp, until } from "../harness/app.ts";
import { StandInStorage } from "./support/stand-in-storage.ts";

async function withStandIn(use: (app: TestApp, standIn: StandInStorage) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "stand-in-"));
  const standIn = new StandInStorage(folder);
  const app = await TestApp.open({ storages: () => [standIn] });
  try {
    await use(app, standIn);
  } finally {
    await app.close();
    rmSync(folder, { recursive: true });
  }
  expect(app.mistakes).toEqual([]);
}

/** A region's token, by which the stand-in's files are called. */
const tokenOf = ({ id }: Region) => id.slice("reg_".length);

const create = (app: TestApp, more: object = {}) =>
  app.create({ storage: "file", name: "weights", byte_size: 1000, persist: true, ...more });

test("a region of another storage is created, found, written, sealed, verified and deleted", () =>
  withStandIn(async (app, standIn) => {
    const region = await create(app);
    expect(region).toMatchObject({ state: "open", storage: { kind: "file", path: null, shm_name: null } });
    const data = new Uint8Array(1000).fill(7);
    const put = await app.app.fetch(
      new Request(`http://localhost/v1/regions/${region.id}/data`, {
        method: "PUT",
        headers: { "content-type": "application/octet-stream", "content-length": "1000" },
        body: data,
      }),
      {},
    );
    expect(put.status).toBe(200);
    await app.ok(200, "POST", `/v1/regions/${region.id}/seal`, { checksum: true });
    expect(await app.verify(region.id)).toMatchObject({ ok: true });
    const got = await app.app.fetch(new Request(`http://localhost/v1/regions/${region.id}/data`), {});
    expect(Buffer.from(await got.bytes()).equals(data)).toBeTrue();
    const path = standIn.pathOf(tokenOf(region));
    await until("the download has ended", async () => !(await app.get(region.id)).in_use);
    {
      using _ = lease(path);
      expect(await app.get(region.id)).toMatchObject({ in_use: true });
      expect(await app.ok<Deletion>(200, "DELETE", `/v1/regions/${region.id}`)).toMatchObject({ state: "draining" });
      expect(existsSync(path)).toBeTrue();
    }
    await until("it is freed", () => !existsSync(path));
    expect(hostOf(await app.stats())).toMatchObject({ used_bytes: 0, draining_bytes: 0 });
  }));

test("what ends regions ends those of another storage: replacement, eviction, a session, a TTL", () =>
  withStandIn(async (app, standIn) => {
    const [first, next] = [await create(app), await create(app, { if_exists: "replace", evictable: true })];
    await app.seal(next.id);
    await until("the replaced one is freed", () => !existsSync(standIn.pathOf(tokenOf(first))));
    const session = await app.ok<{ id: string }>(201, "POST", "/v1/sessions", {});
    const own = await app.create({ storage: "file", byte_size: 1, session: session.id });
    await app.ok(200, "DELETE", `/v1/sessions/${session.id}`);
    const timed = await app.create({ storage: "file", byte_size: 1, ttl_ms: 1 });
    for (const ended of [own, timed]) {
      await until(`${ended.id} is freed`, () => !existsSync(standIn.pathOf(tokenOf(ended))));
    }
    app.store.books.region(next.id).lastUsedAt = 0;
    const eviction = await app.ok<Eviction>(200, "POST", "/v1/evict", { bytes: 1 });
    expect(eviction.evicted.map(({ region }) => region)).toEqual([next.id]);
    expect(existsSync(standIn.pathOf(tokenOf(next)))).toBeFalse();
  }));

test("a storage that this server does not have is refused by name", async () => {
  const app = await TestApp.open();
  const { detail } = await app.refused("storage-unavailable", "POST", "/v1/regions", {
    ...{ storage: "file", byte_size: 1, ttl_ms: 1000 },
  });
  expect(detail).toContain("file storage");
  await app.close();
});
