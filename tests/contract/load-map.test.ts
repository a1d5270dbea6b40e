/** Files that are mapped where they lie: what the region is, what it costs, what the server says of a file that changes, and what it never does to one. */

import { describe, expect, test } from "bun:test";
import {
  appendFileSync,
  chmodSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { MiB } from "../../src/memory/limits.ts";
import { readOffline } from "../../src/server/cli/offline.ts";
import { type AppOptions, TestApp, withApp } from "../harness/app.ts";
import { ModelFolder, shardedUri, tinyPath, tinyUri } from "../harness/load.ts";
import { withBroker } from "./support/broker.ts";
import { load, loadFile } from "./support/load.ts";

function withFolder(use: (app: TestApp, folder: ModelFolder) => Promise<void>, options: AppOptions = {}) {
  return async function useFolder() {
    using folder = new ModelFolder();
    await withApp((app) => use(app, folder), { modelRoots: [folder.path], ...options })();
  };
}

const asMap = { mode: "map" } as const;

interface Residency {
  readonly byte_size: number;
  readonly resident_bytes_before: number | null;
  readonly resident_bytes_after: number | null;
}

/** A link to itself, in the file's place. */
function toLoop(path: string): void {
  rmSync(path);
  symlinkSync(path, path);
}

/** What nobody may do to a file that is somebody else's. */
function stateOf(path: string) {
  const { mode, nlink, size, mtimeNs, ctimeNs, ino } = statSync(path, { bigint: true });
  return { mode, nlink, size, mtimeNs, ctimeNs, ino, content: readFileSync(path) };
}

async function hostPool(app: TestApp) {
  return (await app.stats()).pools.find(({ pool }) => pool === "host");
}

describe("a file that is mapped", () => {
  test(
    "is the region: its path, its offsets, its bytes, and nothing is charged",
    withFolder(async (app, folder) => {
      const path = folder.write("tiny.safetensors", readFileSync(tinyPath));
      const before = await hostPool(app);
      const operation = await loadFile(app, path, asMap);
      expect(operation).toMatchObject({ state: "succeeded", mode: "map", reason: "it was asked for", total_bytes: 0 });
      const region = await app.get(operation.region as string);
      const { dev, ino, mtimeNs, size } = statSync(path, { bigint: true });
      expect(region).toMatchObject({ name: "tiny", state: "sealed", checksum: null, in_use: false });
      expect(region.version).toMatch(/^map-[0-9a-f]{16}$/);
      expect(region.labels["tensord.file"]).toBe(path);
      expect(region.storage).toMatchObject({
        kind: "file",
        format: "safetensors",
        path,
        shm_name: null,
        dev: String(dev),
        ino: String(ino),
        byte_size: Number(size),
        allocation_bytes: 0,
        private: false,
        href: null,
        immutable: false,
        mtime_ns: String(mtimeNs),
        changed: null,
      });
      expect((await hostPool(app))?.used_bytes).toBe(before?.used_bytes as number);
      const { byte_offset: from = 0, byte_size = 0 } = region.tensors[0] ?? {};
      const data = await app.request("GET", `/v1/regions/${region.id}/data?tensor=w`);
      expect(
        Buffer.from(data.body as Uint8Array).equals(readFileSync(path).subarray(from, from + byte_size)),
      ).toBeTrue();
      expect(await app.verify(region.id)).toMatchObject({ ok: null, expected: null });
    }),
  );

  test(
    "is one region for all who map it, beside the copy of it, and its own when it has changed",
    withFolder(async (app, folder) => {
      const path = folder.writeTensor("w.safetensors", Buffer.alloc(10, 1));
      const all = await Promise.all([load(app, path, asMap), load(app, path, asMap), load(app, path, asMap)]);
      expect(new Set([...all, await load(app, path, asMap)]).size).toBe(1);
      const copy = await load(app, path, { mode: "copy" });
      expect(all).not.toContain(copy);
      expect(await load(app, path)).toBe(copy);
      renameSync(folder.writeTensor("new.safetensors", Buffer.alloc(10, 2)), path);
      expect(all).not.toContain(await load(app, path, asMap));
      const refused = await loadFile(app, path, { ...asMap, version: "", if_exists: "fail" });
      expect(refused.problem).toBeNull();
      for (const [mode, version, why] of [
        ["copy", "", "in file storage"],
        ["map", (await app.get(copy)).version, "in shm storage"],
      ] as const) {
        const taken = await loadFile(app, path, { mode, version });
        expect(taken.problem).toMatchObject({ code: "name-taken", detail: expect.stringContaining(why) });
      }
      utimesSync(path, 5, 5);
      const old = await loadFile(app, path, { ...asMap, version: "" });
      const before = expect.stringContaining("as its file was before it changed");
      expect(old.problem).toMatchObject({ code: "name-taken", detail: before });
      expect(app.store.books.pools.get("host").usedBytes).toBe((await app.get(copy)).storage.allocation_bytes);
    }),
  );

  test(
    "is never touched: not by a seal, a delete, an eviction, a drain, or a purge",
    withFolder(async (app, folder) => {
      const path = folder.writeTensor("w.safetensors", Buffer.alloc(10, 1));
      chmodSync(path, 0o640);
      const before = stateOf(path);
      const footprint = app.footprint();
      const id = await load(app, path, asMap);
      await app.refused("region-sealed", "POST", `/v1/regions/${id}/seal`, {});
      expect(await app.remove(id)).toEqual({ state: "deleted", freed_bytes: 0 });
      expect(app.footprint()).toEqual(footprint);
      const leased = await load(app, path, asMap);
      const lease = await app.ok<{ id: string }>(201, "POST", `/v1/regions/${leased}/leases`, { ttl_ms: 60_000 });
      expect(await app.get(leased)).toMatchObject({ in_use: true, leases: 1 });
      expect(await app.remove(leased)).toEqual({ state: "draining", freed_bytes: 0 });
      await app.ok(200, "DELETE", `/v1/leases/${lease.id}`);
      const evictable = await load(app, path, { ...asMap, evictable: true, version: "e" });
      app.store.books.region(evictable).lastUsedAt = 0;
      const evicted = await app.ok<{ evicted: object[]; freed_bytes: number }>(200, "POST", "/v1/evict", { bytes: 1 });
      expect(evicted).toMatchObject({ freed_bytes: 0, evicted: [{ region: evictable, bytes: 0 }] });
      await load(app, path, asMap);
      expect(stateOf(path)).toEqual(before);
    }),
  );

  test(
    "makes no room, and so does not go for it",
    withFolder(
      async (app, folder) => {
        const path = folder.writeTensor("w.safetensors", Buffer.alloc(10, 1));
        const id = await load(app, path, { ...asMap, evictable: true });
        app.store.books.region(id).lastUsedAt = 0;
        const room = await app.create({ byte_size: 20 * MiB, name: "a", persist: true, evictable: true });
        await app.seal(room.id);
        app.store.books.region(room.id).lastUsedAt = 0;
        await app.create({ byte_size: 20 * MiB, on_full: "evict" });
        expect(await app.get(id)).toMatchObject({ state: "sealed" });
      },
      { memoryLimitBytes: 40 * MiB },
    ),
  );

  test(
    "can be copied into memory, while it is what it was",
    withFolder(async (app, folder) => {
      const path = folder.writeTensor("w.safetensors", Buffer.alloc(4096, 7));
      const id = await load(app, path, { ...asMap, name: "mapped" });
      const wait = { headers: { prefer: "wait=60" } };
      const copied = () =>
        app.ok<{ region: string | null; problem: unknown }>(
          200,
          "POST",
          `/v1/regions/${id}/copy`,
          { ttl_ms: 60_000 },
          wait,
        );
      const { region } = await copied();
      const data = await app.request("GET", `/v1/regions/${region}/data`);
      expect(Buffer.from(data.body as Uint8Array).equals(Buffer.alloc(4096, 7))).toBeTrue();
      appendFileSync(path, "x");
      expect((await copied()).problem).toMatchObject({ code: "io-error" });
    }),
  );
});

describe("a mapped file that is no more what it was", () => {
  const changes: readonly [word: string, change: (path: string) => void][] = [
    ["modified", (path) => appendFileSync(path, "more")],
    ["modified", (path) => truncateSync(path, 3)],
    ["modified", (path) => utimesSync(path, 1, 1)],
    ["replaced", (path) => renameSync(`${path}.new`, path)],
    ["gone", (path) => rmSync(path)],
    ["gone", toLoop],
  ];
  test(
    "is told of when it is asked for, in an event and in the descriptor, and its bytes are not given out",
    withFolder(async (app, folder) => {
      for (const [index, [word, change]] of changes.entries()) {
        const path = folder.writeTensor(`w${index}.safetensors`, Buffer.alloc(10, 1));
        writeFileSync(`${path}.new`, readFileSync(path));
        const id = await load(app, path, asMap);
        const { revision } = await app.get(id);
        const last = app.store.events.history().next;
        change(path);
        const told = await app.get(id);
        expect(told).toMatchObject({ state: "sealed", revision: revision + 1, storage: { changed: word, path } });
        expect(await app.get(id)).toMatchObject({ revision: revision + 1 });
        const events = app.store.events.history().events.filter(({ sequence }) => sequence >= last);
        expect(events.map(({ type }) => type)).toEqual(["tensord.region.changed"]);
        for (const what of [`/v1/regions/${id}/data`, `/v1/regions/${id}/file/w.safetensors`]) {
          const problem = await app.refused("io-error", "GET", what);
          expect(problem.detail).toContain(path);
          expect(problem.hint).toStartWith("Load it again");
        }
        await app.refused("io-error", "POST", `/v1/regions/${id}/verify`);
        expect(await app.remove(id)).toMatchObject({ state: "deleted" });
      }
    }),
  );

  test(
    "is what it was again once it is back",
    withFolder(async (app, folder) => {
      const path = folder.writeTensor("w.safetensors", Buffer.alloc(10, 1));
      const id = await load(app, path, asMap);
      renameSync(path, `${path}.away`);
      expect(await app.get(id)).toMatchObject({ storage: { changed: "gone" } });
      renameSync(`${path}.away`, path);
      expect(await app.get(id)).toMatchObject({ storage: { changed: null } });
      expect((await app.request("GET", `/v1/regions/${id}/data`)).status).toBe(200);
    }),
  );
});

describe("a restart", () => {
  test("brings mapped files back, tells of those that changed, and of a root that is named no more", async () => {
    using folder = new ModelFolder();
    using other = new ModelFolder();
    const [same, changed] = ["same", "changed"].map((name) =>
      folder.writeTensor(`${name}.safetensors`, Buffer.alloc(9, 1)),
    );
    const moved = other.writeTensor("moved.safetensors", Buffer.alloc(9, 1));
    const first = await TestApp.open({ modelRoots: [folder.path, other.path] });
    const ids = [same, changed, moved].map((path) =>
      load(first, path as string, { ...asMap, ttl_ms: undefined, persist: true }),
    );
    const [sameId, changedId, movedId] = (await Promise.all(ids)) as [string, string, string];
    const before = await first.get(sameId);
    await first.leave();
    const { bytes, regions, lost } = await readOffline({ shmDirectory: first.shmDirectory, instance: first.instance });
    expect([bytes.used, regions.length, lost]).toEqual([0, 3, 0]);
    writeFileSync(changed as string, "another");
    const second = await TestApp.open({ instance: first.instance, modelRoots: [folder.path] });
    const { last_used_at: _, ...after } = await second.get(sameId);
    expect(before).toMatchObject(after);
    expect(await second.get(changedId)).toMatchObject({ storage: { changed: "modified" } });
    expect(await second.get(movedId)).toMatchObject({ storage: { changed: "not-allowed", path: moved } });
    const refused = await second.refused("io-error", "GET", `/v1/regions/${movedId}/data`);
    expect(refused.detail).toContain("TENSORD_MODEL_ROOTS");
    expect((await second.get(sameId)).tensors).toHaveLength(1);
    expect(await load(second, same as string, { ...asMap, ttl_ms: undefined, persist: true })).toBe(sameId);
    await second.leave();
    const third = await TestApp.open({ instance: first.instance, modelRoots: [folder.path, other.path] });
    expect(await third.get(movedId)).toMatchObject({ storage: { changed: null } });
    await third.close();
  });
});

describe("auto", () => {
  test(
    "maps a file of this machine that no worker may write to, and says why it copies another",
    withFolder(async (app, folder) => {
      const auto = { mode: "auto" } as const;
      const path = folder.writeTensor("w.safetensors", Buffer.alloc(10, 1));
      chmodSync(path, 0o644);
      expect(await loadFile(app, path, auto)).toMatchObject({
        mode: "map",
        reason: expect.stringContaining("no worker may write to it"),
      });
      expect(await loadFile(app, path, { ...auto, storage: "memfd" })).toMatchObject({
        mode: "copy",
        reason: "it was said what the region is made of",
      });
      chmodSync(path, 0o664);
      expect(await loadFile(app, path, auto)).toMatchObject({ mode: "copy", reason: "its group may write to it" });
      chmodSync(path, 0o666);
      expect(await loadFile(app, path, auto)).toMatchObject({
        mode: "copy",
        reason: expect.stringContaining("everybody may write to it; nothing was copied, as "),
      });
      const packed = folder.write("p.safetensors.gz", gzipSync(readFileSync(tinyPath)));
      expect(await loadFile(app, packed, auto)).toMatchObject({ mode: "copy", reason: "it is compressed (gzip)" });
      expect(await loadFile(app, packed, {})).toMatchObject({ mode: "copy", reason: "that is the default" });
    }),
  );

  test(
    "copies a model in several files, which no map can be",
    withApp(async (app) => {
      const wait = { headers: { prefer: "wait=60" } };
      const body = { uri: shardedUri, ttl_ms: 60_000 };
      const loads = (more: object) => app.ok(200, "POST", "/v1/models/default/load", { ...body, ...more }, wait);
      expect(await loads({ mode: "auto" })).toMatchObject({ mode: "copy", reason: "the model is in several files" });
      expect(await loads(asMap)).toMatchObject({ problem: { code: "unsupported-format" }, mode: null });
      const said = { uri: tinyUri, ttl_ms: 60_000, ...asMap };
      for (const target of [{ storage: "shm" }, { private: true }]) {
        await app.refused("validation-failed", "POST", "/v1/models/default/load", { ...said, ...target });
      }
    }),
  );
});

test(
  "a link inside of the root is followed, and one out of it is not",
  withFolder(async (app, folder) => {
    using outside = new ModelFolder();
    symlinkSync(outside.writeTensor("o.safetensors", Buffer.alloc(1)), join(folder.path, "out.safetensors"));
    folder.writeTensor("blob", Buffer.alloc(1));
    symlinkSync("blob", join(folder.path, "in.safetensors"));
    const inside = await app.get(await load(app, join(folder.path, "in.safetensors"), asMap));
    expect(inside.storage.path).toBe(join(folder.path, "in.safetensors"));
    // A link that leads elsewhere by now leads to another file.
    rmSync(join(folder.path, "in.safetensors"));
    folder.writeTensor("other", Buffer.alloc(1));
    symlinkSync("other", join(folder.path, "in.safetensors"));
    expect((await app.get(inside.id)).storage.changed).toBe("replaced");
    const refused = await loadFile(app, join(folder.path, "out.safetensors"), asMap);
    expect(refused.problem).toMatchObject({ code: "forbidden" });
  }),
);

test("is handed out by no broker, since its readers open it by themselves", async () => {
  using folder = new ModelFolder();
  const path = folder.writeTensor("w.safetensors", Buffer.alloc(10));
  const check = withBroker(
    async ({ app, connect }) => {
      const region = await load(app, path, asMap);
      const client = await connect();
      const problem = await client.problem("attach", { region, access: "ro" });
      expect(problem).toMatchObject({ code: "storage-unavailable", hint: expect.stringContaining("mode copy") });
    },
    {},
    { modelRoots: [folder.path] },
  );
  await check();
});

test("a token that is held to some roots has files of no others loaded", async () => {
  using folder = new ModelFolder();
  mkdirSync(join(folder.path, "mine"));
  const mine = folder.writeTensor("mine/a.safetensors", Buffer.alloc(1));
  const theirs = folder.writeTensor("b.safetensors", Buffer.alloc(1));
  symlinkSync("../b.safetensors", join(folder.path, "mine/b.safetensors"));
  const token = "t".repeat(40);
  const line = { name: "w", role: "worker", token, roots: [join(folder.path, "mine"), "/elsewhere"] };
  const options = { modelRoots: [folder.path], tokens: [line] };
  await withApp(async (app) => {
    const wait = { headers: { prefer: "wait=60", authorization: `Bearer ${token}` } };
    const loads = (path: string, mode: string) =>
      app.request("POST", "/v1/models/default/load", { uri: `file://${path}`, mode, ttl_ms: 60_000 }, wait);
    for (const mode of ["map", "copy"]) {
      expect((await loads(mine, mode)).body).toMatchObject({ state: "succeeded" });
      expect((await loads(theirs, mode)).body).toMatchObject({ code: "forbidden" });
      const linked = await loads(join(folder.path, "mine/b.safetensors"), mode);
      expect(linked.body).toMatchObject({ problem: { code: "forbidden" } });
    }
  }, options)();
});

describe("the pages of a mapped file", () => {
  test(
    "are let go of and read ahead as was advised, and the answer says what was achieved",
    withFolder(async (app, folder) => {
      const path = folder.writeTensor("w.safetensors", Buffer.alloc(3 * MiB, 1));
      const id = await load(app, path, asMap);
      const size = statSync(path).size;
      expect(await app.ok(200, "POST", `/v1/regions/${id}/flush`)).toEqual({ durable: true });
      const dropped = await app.ok<Residency>(200, "POST", `/v1/regions/${id}/advise`, { advice: "dontneed" });
      expect(dropped).toMatchObject({ byte_size: size });
      expect(dropped.resident_bytes_before).toBeWithin(1, size + 1);
      expect(dropped.resident_bytes_after).toBeLessThan(size);
      const read = await app.ok<Residency>(200, "POST", `/v1/regions/${id}/advise`, { advice: "willneed" });
      expect(read.resident_bytes_after).toBeGreaterThanOrEqual(read.resident_bytes_before as number);
      expect(readFileSync(path).at(-1)).toBe(1);
    }),
  );

  test(
    "of memory are its only copy, and stay",
    withApp(async (app) => {
      for (const storage of ["shm", "memfd", "heap"]) {
        const { id, storage: made } = await app.create({ byte_size: 100_000, storage });
        // Pages that were never written do not count.
        await app.ok(200, "PUT", `/v1/regions/${id}/data`, Buffer.alloc(100_000, 1).toString("latin1"));
        const answer = await app.ok<Residency>(200, "POST", `/v1/regions/${id}/advise`, { advice: "dontneed" });
        expect(answer).toEqual({
          byte_size: made.byte_size,
          resident_bytes_before: made.byte_size,
          resident_bytes_after: made.byte_size,
        });
        expect(await app.ok(200, "POST", `/v1/regions/${id}/flush`)).toEqual({ durable: false });
      }
    }),
  );
});
