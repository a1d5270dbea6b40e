/**
 * Operations on regions know no kind of storage: a region's whole life in each that there is, and in one that no line of
 * them was written for, a stand-in without public names beside the server's own.
 */

import { expect, test } from "bun:test";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MiB } from "../../src/memory/limits.ts";
import { hostPool } from "../../src/memory/naming.ts";
import type { Eviction } from "../../src/server/cli/answers.ts";
import { readBytes, writeBytes } from "../contract/support/data-requests.ts";
import { lease } from "../contract/support/lease.ts";
import type { Deletion, Region } from "../harness/answers.ts";
import { TestApp, until } from "../harness/app.ts";
import { findMemfd } from "../harness/memfd.ts";
import { StandInStorage } from "./support/stand-in-storage.ts";
import { hasDriver, openDevices } from "./support/storages.ts";

interface Life {
  readonly name: string;
  /** What a creation says of its storage, and what the descriptor says then. */
  readonly wish: object;
  readonly told: object;
  /** Of files that lie ready, in place of files that are made when they are asked for. */
  readonly isReady?: boolean;
  /** Whether the server reads and writes its bytes. */
  readonly hasBytes?: boolean;
  /** Where the memory is that the test looks at; undefined once it is gone. */
  readonly find: (app: TestApp, region: Region) => string | undefined;
}

const ifThere = (path: string) => (existsSync(path) ? path : undefined);
const kept = ({ shmDirectory, instance }: TestApp, name: string) =>
  ifThere(`${shmDirectory}/tensord.${instance}/keep/${name}`);
const tokenOf = ({ id }: Region) => id.slice("reg_".length);
const unnamed = { path: null, shm_name: null };
let standInFolder = "";

const lives: readonly Life[] = [
  { name: "shm", wish: {}, told: { kind: "shm", private: false }, find: (app, region) => kept(app, tokenOf(region)) },
  {
    name: "private shm",
    wish: { private: true },
    told: { kind: "shm", private: true, ...unnamed },
    find: (app, region) => kept(app, `${tokenOf(region)}.private`),
  },
  {
    name: "shm that lay ready",
    wish: {},
    told: { kind: "shm", private: false },
    isReady: true,
    find: (app, region) => kept(app, tokenOf(region)),
  },
  {
    name: "private shm that lay ready",
    wish: { private: true },
    told: { kind: "shm", private: true, ...unnamed },
    isReady: true,
    find: (app, region) => kept(app, `${tokenOf(region)}.private`),
  },
  {
    name: "memfd",
    wish: { storage: "memfd" },
    told: { kind: "memfd", private: true, ...unnamed },
    find: (_, region) => findMemfd(tokenOf(region)),
  },
  {
    name: "heap",
    wish: { storage: "heap" },
    told: { kind: "heap", private: true, ...unnamed },
    find: (_, region) => findMemfd(tokenOf(region)),
  },
  ...(hasDriver
    ? [
        {
          name: "cuda_vmm",
          wish: { storage: "cuda_vmm" },
          told: { kind: "cuda_vmm", private: true, ...unnamed },
          hasBytes: false,
          find: (_: TestApp, region: Region) => findMemfd(tokenOf(region)),
        },
      ]
    : []),
  {
    name: "a stand-in",
    wish: { storage: "file" },
    told: { kind: "file", private: false, ...unnamed },
    find: (_, region) => ifThere(join(standInFolder, "kept", tokenOf(region))),
  },
];

/** Whoever else is at work on this machine. */
const calm = { meminfo: undefined, pressure: undefined };

async function withStandIn(isReady: boolean, use: (app: TestApp) => Promise<void>): Promise<void> {
  using opened = new DisposableStack();
  standInFolder = mkdtempSync(join(tmpdir(), "stand-in-"));
  const app = await TestApp.open({
    storages: async ({ memfds }) => {
      const devices = hasDriver ? await openDevices(opened, memfds) : [];
      return { storages: [new StandInStorage(standInFolder), ...devices] };
    },
    ...(isReady && { reserve: { settingBytes: 16 * MiB, nice: 0, readPressure: () => calm } }),
  });
  try {
    if (isReady) await app.start();
    await app.store.reserve.settled();
    await use(app);
    if (isReady) expect(app.store.reserve.counts.hits.small).toBeGreaterThan(0);
  } finally {
    await app.close();
    rmSync(standInFolder, { recursive: true });
  }
  expect(app.mistakes).toEqual([]);
}

for (const { name, wish, told, isReady = false, hasBytes = true, find } of lives) {
  const create = (app: TestApp, more: object = {}) =>
    app.create({ ...wish, name: "weights", byte_size: 1000, persist: true, ...more });
  const untilFreed = (app: TestApp, region: Region) =>
    until(`${region.id} is freed`, () => find(app, region) === undefined);

  test(`a region of ${name} is created, found, written, sealed, verified, downloaded and deleted`, () =>
    withStandIn(isReady, async (app) => {
      const region = await create(app);
      expect(region).toMatchObject({ state: "open", storage: told });
      expect(await app.ok(200, "GET", "/v1/models/default/regions/weights")).toMatchObject({ id: region.id });
      const data = new Uint8Array(1000).fill(7);
      if (hasBytes) {
        expect(await writeBytes(app, region.id, data)).toMatchObject({ status: 200 });
        const lone = { headers: { "content-length": "3", "content-range": "bytes 1-3/1000" } };
        expect(await writeBytes(app, region.id, new Uint8Array(3).fill(8), lone)).toMatchObject({ status: 200 });
        data.fill(8, 1, 4);
      }
      const sealed = await app.seal(region.id, { checksum: true });
      expect(sealed).toMatchObject({ state: "sealed", storage: told });
      expect(await app.verify(region.id)).toMatchObject({ ok: true });
      await app.refused("region-sealed", "PUT", `/v1/regions/${region.id}/data`, new Uint8Array(1000) as never, {
        headers: { "content-type": "application/octet-stream" },
      });
      if (hasBytes) expect((await readBytes(app, region.id)).bytes.equals(data)).toBeTrue();
      await until("the download has ended", async () => !(await app.get(region.id)).in_use);
      {
        using _ = lease(find(app, region) ?? "");
        expect(await app.get(region.id)).toMatchObject({ in_use: true });
        expect(await app.ok<Deletion>(200, "DELETE", `/v1/regions/${region.id}`)).toMatchObject({ state: "draining" });
        expect(find(app, region)).toBeDefined();
      }
      await untilFreed(app, region);
      const { pools } = await app.stats();
      for (const pool of pools) expect(pool).toMatchObject({ used_bytes: 0, draining_bytes: 0 });
    }));

  test(`what ends regions ends those of ${name}: replacement, eviction, a session, a TTL`, () =>
    withStandIn(isReady, async (app) => {
      const [first, next] = [await create(app), await create(app, { if_exists: "replace", evictable: true })];
      await app.seal(next.id);
      await untilFreed(app, first);
      const session = await app.ok<{ id: string }>(201, "POST", "/v1/sessions", { ttl_ms: 600_000 });
      const own = await app.create({ ...wish, byte_size: 1, session: session.id });
      await app.ok(200, "DELETE", `/v1/sessions/${session.id}`);
      const timed = await app.create({ ...wish, byte_size: 1, ttl_ms: 1 });
      for (const ended of [own, timed]) await untilFreed(app, ended);
      app.store.books.region(next.id).lastUsedAt = 0;
      const pool = next.storage.device_uuid ?? hostPool;
      const eviction = await app.ok<Eviction>(200, "POST", "/v1/evict", { bytes: 1, pool });
      expect(eviction.evicted.map(({ region }) => region)).toEqual([next.id]);
      expect(find(app, next)).toBeUndefined();
    }));
}

test("a storage that this server does not have is refused by name", async () => {
  const app = await TestApp.open();
  const { detail } = await app.refused("storage-unavailable", "POST", "/v1/regions", {
    ...{ storage: "file", byte_size: 1, ttl_ms: 1000 },
  });
  expect(detail).toContain("file storage");
  await app.close();
});
