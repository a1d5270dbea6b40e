/**
 * Regions without a public name over a restart: what somebody held comes back with its bytes, its seal and its name, also where the
 * journal was lost; what nobody held is told as lost.
 */

import { describe, expect, test } from "bun:test";
import { openSync, rmSync, statSync } from "node:fs";
import type { Region } from "../harness/answers.ts";
import { TestApp, until } from "../harness/app.ts";
import { findMemfd, memfdPath } from "../harness/memfd.ts";
import { readBytes, writeBytes } from "./support/data-requests.ts";
import { lease } from "./support/lease.ts";
import { TestHolder } from "./support/test-holder.ts";

const hour = 3_600_000;
const data = Buffer.alloc(64, "abcdefgh");

interface Lost {
  readonly type: string;
  readonly data: { readonly id: string; readonly cause?: string; readonly former_name?: string | null };
}

async function readLost(app: TestApp): Promise<Lost[]> {
  const { items } = await app.ok<{ items: Lost[] }>(200, "GET", "/v1/events");
  return items.filter(({ type }) => type === "tensord.region.lost");
}

const byName = (app: TestApp, name: string) => app.ok<Region>(200, "GET", `/v1/models/default/regions/${name}`);
const storeFolder = ({ shmDirectory, instance }: TestApp) => `${shmDirectory}/tensord.${instance}/store`;

/** Sealed, open, draining and unnamed ones: whatever may be there when a server goes. */
async function fill(app: TestApp, storage: object) {
  const create = (more: object) => app.create({ ...storage, byte_size: 64, persist: true, ...more });
  const [sealed, open] = [await create({ name: "sealed" }), await create({ name: "open", version: "2" })];
  const timed = await app.create({ ...storage, ttl_ms: hour });
  for (const { id } of [sealed, open]) expect(await writeBytes(app, id, data)).toMatchObject({ status: 200 });
  await app.seal(sealed.id, { checksum: true });
  return { sealed, open, timed };
}

for (const [what, storage] of [
  ["memfd", { storage: "memfd" }],
  ["private shm", { private: true }],
] as const) {
  describe(`a restart with regions in ${what}`, () => {
    test("brings back what was held: bytes, seals, names, versions, charges", async () => {
      using fdHolder = new TestHolder();
      const app = await TestApp.open({ fdHolder });
      const { sealed, open, timed } = await fill(app, storage);
      const used = app.footprint().usedBytes;
      await app.leave();

      const next = await TestApp.open({ fdHolder, instance: app.instance });
      expect(await readLost(next)).toEqual([]);
      for (const before of [sealed, open, timed]) {
        const now = await next.get(before.id);
        expect(now).toMatchObject({ name: before.name, version: before.version, storage: before.storage });
      }
      expect(await byName(next, "sealed")).toMatchObject({ id: sealed.id, state: "sealed" });
      expect(await next.verify(sealed.id)).toMatchObject({ ok: true });
      expect((await readBytes(next, open.id)).bytes.equals(data)).toBeTrue();
      expect(await writeBytes(next, open.id, data)).toMatchObject({ status: 200 });
      expect(next.footprint().usedBytes).toBe(used);
      for (const { id } of [sealed, open, timed]) expect(await next.remove(id)).toMatchObject({ state: "deleted" });
      expect(fdHolder.held.size).toBe(0);
      await next.close();
    });

    test("gives it its name and owner by its proof where the journal is gone", async () => {
      using fdHolder = new TestHolder();
      const app = await TestApp.open({ fdHolder });
      const { sealed, open, timed } = await fill(app, storage);
      await app.leave();
      rmSync(storeFolder(app), { recursive: true });

      const next = await TestApp.open({ fdHolder, instance: app.instance });
      expect(await byName(next, "sealed")).toMatchObject({
        id: sealed.id,
        state: "sealed",
        owner: { kind: "persist" },
      });
      expect(await byName(next, "open")).toMatchObject({ id: open.id, state: "open", version: "2" });
      expect(await next.get(timed.id)).toMatchObject({ name: null, owner: { kind: "ttl", ttl_ms: hour } });
      expect((await next.get(sealed.id)).storage).toEqual(sealed.storage);
      expect((await readBytes(next, open.id)).bytes.equals(data)).toBeTrue();
      await next.close();
    });
  });
}

test("what a server made in memfd and died before it told is freed by the next start, and told to nobody", async () => {
  using fdHolder = new TestHolder();
  const app = await TestApp.open({ fdHolder });
  const { memory } = app.store.storages.get("memfd");
  const token = "a".repeat(26);
  await memory.allocate({ token, byteSize: 8192, header: new Uint8Array(4096) }, new AbortController().signal);
  await app.leave();
  expect([...fdHolder.held.keys()]).toEqual([token]);

  const next = await TestApp.open({ fdHolder, instance: app.instance });
  await until("it is freed", () => fdHolder.held.size === 0);
  expect(findMemfd(token)).toBeUndefined();
  expect(await next.ok(200, "GET", "/v1/regions")).toMatchObject({ items: [] });
  await next.close();
});

test("a region in memfd that drains over a restart goes when its last lease does", async () => {
  using fdHolder = new TestHolder();
  const app = await TestApp.open({ fdHolder });
  const region = await app.create({ storage: "memfd", name: "drains" });
  const { ino } = statSync(memfdPath(region));
  const leased = lease(memfdPath(region));
  expect(await app.remove(region.id)).toMatchObject({ state: "draining" });
  await app.leave();
  const next = await TestApp.open({ fdHolder, instance: app.instance });
  expect(await next.get(region.id)).toMatchObject({ state: "draining", in_use: true, storage: { ino: String(ino) } });
  leased[Symbol.dispose]();
  await until("it is freed", () => fdHolder.held.size === 0);
  await next.close();
});

test("a region in memfd that nobody held is told as lost with the reason, and its name is free", async () => {
  const app = await TestApp.open();
  const region = await app.create({ storage: "memfd", name: "weights", persist: true });
  const draining = await app.create({ storage: "memfd", name: "drains" });
  {
    using _ = lease(memfdPath(draining));
    expect(await app.remove(draining.id)).toMatchObject({ state: "draining" });
    await app.leave();
  }
  const next = await TestApp.open({ instance: app.instance });
  expect((await readLost(next)).map((event) => event.data)).toMatchObject([
    { id: region.id, former_name: "weights", cause: "not-kept" },
  ]);
  const { detail } = await next.refused("region-not-found", "GET", `/v1/regions/${region.id}`);
  expect(detail).toContain("was lost: nobody held its memory while no server ran");
  const named = await next.refused("region-not-found", "GET", "/v1/models/default/regions/weights");
  expect(named.detail).toContain("nobody held its memory");
  expect(await next.create({ storage: "memfd", name: "weights" })).toMatchObject({ state: "open" });
  await next.close();
});

test("a descriptor that an fd holder has and that is no region's is left to it", async () => {
  using fdHolder = new TestHolder();
  fdHolder.held.set("b".repeat(26), openSync("/dev/null", "r+"));
  const app = await TestApp.open({ fdHolder });
  expect(await app.ok(200, "GET", "/v1/regions")).toMatchObject({ items: [] });
  expect(fdHolder.held.size).toBe(1);
  await app.close();
});
