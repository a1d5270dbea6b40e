/** Allocation: what a fresh region is on the wire and on disk, and what becomes of a name that is taken. */

import { describe, expect, test } from "bun:test";
import { lstatSync, statSync } from "node:fs";
import { TensordError } from "../../src/memory/error.ts";
import { parseHeader } from "../../src/memory/layout/layout.ts";
import { MiB } from "../../src/memory/limits.ts";
import { hostOf } from "../../src/server/cli/pools.ts";
import type { Answer, Region } from "../harness/answers.ts";
import { type TestApp, toCharge, withApp } from "../harness/app.ts";
import { Intruder, lease } from "./support/lease.ts";
import { idInState, slowBytes } from "./support/region-failures.ts";

const weights = { name: "weights", tensors: [{ name: "w", dtype: "F32", shape: [4, 4] }], ttl_ms: 60_000 };

function ask(app: TestApp, body: object): Promise<Answer> {
  return app.request("POST", "/v1/regions", body);
}

for (const failing of ["create.journaled", "create.proved"] as const) {
  test(`a creation whose commit fails at ${failing} is told to nobody and leaves nothing`, async () => {
    let isBroken = true;
    const onStep = (step: string) => {
      if (step !== failing || !isBroken) return;
      throw new TensordError("out-of-shared-memory", "Cannot write it: no page is free", { hint: "Free some." });
    };
    await withApp(
      async (app) => {
        expect((await ask(app, weights)).status).toBe(507);
        expect(app.store.proofs.byteSize()).toBe(0);
        isBroken = false;
        const { id } = await app.create(weights);
        const { body } = await app.request("GET", "/v1/events?types=tensord.region.");
        const told = (body as { items: { type: string; subject: string }[] }).items;
        expect(told.map(({ type, subject }) => [type, subject])).toEqual([["tensord.region.allocated", id]]);
        expect((await app.stats()).regions).toMatchObject({ open: 1, draining: 0 });
      },
      { onStep },
    )();
  });
}

describe("a fresh region", () => {
  test(
    "is open, belongs to its owner, and lies where the descriptor says",
    withApp(async (app) => {
      const before = Date.now();
      const region = await app.create({ ...weights, labels: { job: "nightly" } });
      expect(region.id).toMatch(/^reg_[a-z2-7]{26}$/);
      expect(region).toMatchObject({
        model: "default",
        name: "weights",
        pending_name: null,
        state: "open",
        revision: 1,
        owner: { kind: "ttl", ttl_ms: 60_000 },
        labels: { job: "nightly" },
        checksum: null,
        sealed_at: null,
      });
      const created = Date.parse(region.created_at);
      expect(created).toBeWithin(before, Date.now() + 1);
      expect(region.expires_at).toBe(new Date(created + 60_000).toISOString());
      const stat = lstatSync(region.storage.path, { bigint: true });
      const { dev, ino, byte_size, page_size, path, shm_name } = region.storage;
      expect({ dev, ino, byte_size }).toEqual({
        dev: String(stat.dev),
        ino: String(stat.ino),
        byte_size: Number(stat.size),
      });
      expect({ page_size, path: `/dev/shm${shm_name}` }).toEqual({ page_size: 4096, path });
      expect(stat.mode & 0o7777n).toBe(0o660n);
      const { last_used_at: _, ...lasting } = region;
      expect(await app.get(region.id)).toMatchObject({ ...lasting, in_use: false, has_writers: false });
    }),
  );

  test(
    "is found where the answer's Location points, with the answer's ETag",
    withApp(async (app) => {
      const { headers, body } = await ask(app, weights);
      const location = headers.get("location") ?? "";
      const found = await app.request("GET", location);
      expect(found.body).toMatchObject({ id: (body as Region).id });
      expect(headers.get("etag")).toBe(`"${(body as Region).id}.1"`);
      expect(found.headers.get("etag")).toBe(headers.get("etag"));
    }),
  );

  test(
    "has all of its pages, is zero, and begins with a header that its tensors agree with",
    withApp(async (app) => {
      const { storage, tensors } = await app.create({
        tensors: [
          { name: "a", dtype: "U8", shape: [3] },
          { name: "b", dtype: "F64", shape: [] },
          { name: "empty", dtype: "F32", shape: [0, 7] },
          { name: "größe 😀 / ..", dtype: "BF16", shape: [5] },
        ],
      });
      expect(statSync(storage.path).blocks * 512).toBe(toCharge(storage.byte_size));
      using file = new Intruder(storage.path);
      const bytes = file.read(0, storage.byte_size);
      const { tensors: inFile, metadata } = parseHeader(bytes, storage.byte_size);
      expect(inFile.map(({ name, byteOffset, byteSize }) => [name, byteOffset, byteSize]).toSorted()).toEqual(
        tensors.map(({ name, byte_offset, byte_size }) => [name, byte_offset, byte_size]).toSorted(),
      );
      expect(metadata).toMatchObject({ "tensord.model": "default", "tensord.instance": app.instance });
      for (const { byte_offset, byte_size, aligned } of tensors) {
        expect(aligned).toBeTrue();
        expect(bytes.subarray(byte_offset, byte_offset + byte_size).every((byte) => byte === 0)).toBeTrue();
      }
    }),
  );

  test(
    "of a byte_size is one tensor called data",
    withApp(async (app) => {
      const { tensors, storage } = await app.create({ byte_size: 5 });
      expect(tensors).toEqual([
        {
          ...{ name: "data", dtype: "U8", shape: [5], byte_offset: 4096, byte_size: 5, aligned: true },
          ...{ alias_of: null, logical: null },
        },
      ]);
      expect(storage.byte_size).toBe(4101);
      expect((await app.create({ byte_size: 0 })).tensors).toMatchObject([{ shape: [0], byte_size: 0 }]);
    }),
  );

  test(
    "that persists has no end",
    withApp(async (app) => {
      const { owner, expires_at } = await app.create({ name: "weights", persist: true });
      expect({ owner, expires_at }).toEqual({ owner: { kind: "persist" }, expires_at: null });
    }),
  );

  test(
    "that is told not to persist has the owner that is there beside it, as if nothing were said",
    withApp(async (app) => {
      const { owner } = await app.create({ name: "weights", persist: false, ttl_ms: 60_000 });
      expect(owner).toEqual({ kind: "ttl", ttl_ms: 60_000 });
      await app.refused("owner-required", "POST", "/v1/regions", { name: "other", persist: false, byte_size: 64 });
    }),
  );

  test(
    "holds what two tensors were given, each at its byte_offset",
    withApp(async (app) => {
      const { storage, tensors, id } = await app.create({
        tensors: [
          { name: "small", dtype: "U8", shape: [7] },
          { name: "wide", dtype: "F64", shape: [3] },
        ],
      });
      const [small, wide] = tensors;
      if (small === undefined || wide === undefined) throw new Error("two tensors were asked for");
      using file = new Intruder(storage.path);
      const wrote = { small: Buffer.from("seven b"), wide: Buffer.from(new Float64Array([1, -2.5, Math.PI]).buffer) };
      file.write(small.byte_offset, wrote.small);
      file.write(wide.byte_offset, wrote.wide);
      await app.seal(id);
      const bytes = file.read(0, storage.byte_size);
      const headerBytes = 8 + Number(bytes.readBigUInt64LE(0));
      const header = JSON.parse(bytes.toString("utf8", 8, headerBytes));
      for (const [name, content] of Object.entries(wrote)) {
        const [begin, end] = header[name].data_offsets;
        expect(bytes.subarray(headerBytes + begin, headerBytes + end)).toEqual(content);
      }
    }),
  );
});

describe("a region in creation", () => {
  test(
    "is on the list, charged, and holds its name before it can be mapped",
    withApp(async (app) => {
      const creation = app.create({ byte_size: slowBytes, name: "weights" });
      const id = await idInState(app, "creating");
      expect(await app.get(id)).toMatchObject({ name: "weights", state: "creating", in_use: false });
      expect(hostOf(await app.stats()).used_bytes).toBe(toCharge(slowBytes + 4096));
      await app.refused("name-taken", "POST", "/v1/regions", weights);
      expect((await creation).id).toBe(id);
    }),
  );

  test(
    "that is deleted gives back its name, its bytes and its file",
    withApp(async (app) => {
      const before = app.footprint();
      const creation = ask(app, { byte_size: slowBytes, name: "weights", ttl_ms: 1000 });
      const id = await idInState(app, "creating");
      expect(await app.remove(id)).toEqual({ state: "deleted", freed_bytes: toCharge(slowBytes + 4096) });
      expect(app.footprint()).toEqual(before);
      expect((await creation).body).toMatchObject({ code: "cancelled" });
      expect(app.footprint()).toEqual(before);
      await app.refused("region-not-found", "GET", `/v1/regions/${id}`);
    }),
  );

  test(
    "whose client goes away is undone before the commit, and that is nobody's mistake",
    withApp(async (app) => {
      const before = app.footprint();
      const client = new AbortController();
      const body = { byte_size: slowBytes, ttl_ms: 1000 };
      const creation = app.request("POST", "/v1/regions", body, { signal: client.signal });
      await idInState(app, "creating");
      client.abort();
      expect((await creation).body).toMatchObject({ code: "cancelled" });
      expect(app.footprint()).toEqual(before);
    }),
  );

  test(
    "does not hold up one that needs little",
    withApp(async (app) => {
      let isDone = false;
      const creation = app.create({ byte_size: slowBytes }).then(() => {
        isDone = true;
      });
      await idInState(app, "creating");
      await app.create({ byte_size: 64 });
      expect(isDone).toBeFalse();
      await creation;
    }),
  );
});

describe("limits", () => {
  test(
    "of a model count whole pages, header and all, and say what is free",
    withApp(async (app) => {
      await app.register("small", 4 * 4096);
      const region = await app.create({ model: "small", byte_size: 1 });
      expect(region.storage.byte_size).toBe(4097);
      const problem = await app.refused("model-limit-exceeded", "POST", "/v1/regions", {
        model: "small",
        byte_size: 4097,
        ttl_ms: 1000,
      });
      expect(problem).toMatchObject({ requested_bytes: 3 * 4096, available_bytes: 2 * 4096 });
      const second = await app.create({ model: "small", byte_size: 4096 });
      {
        using _ = lease(region.storage.path);
        await app.remove(region.id);
        // What drains still is in memory.
        await app.refused("model-limit-exceeded", "POST", "/v1/regions", {
          model: "small",
          byte_size: 4096,
          ttl_ms: 1000,
        });
      }
      await app.remove(second.id);
      await app.create({ model: "small", byte_size: 4096 });
    }),
  );

  test(
    "of the server count every model, and what drains",
    withApp(
      async (app) => {
        const { available_bytes: available } = hostOf(await app.stats());
        const big = await app.create({ byte_size: available - 4096 });
        expect(hostOf(await app.stats()).available_bytes).toBe(0);
        const problem = await app.refused("pool-full", "POST", "/v1/regions", { byte_size: 1, ttl_ms: 1000 });
        expect(problem).toMatchObject({ requested_bytes: 8192, available_bytes: 0 });
        {
          using _ = lease(big.storage.path);
          await app.remove(big.id);
          await app.refused("pool-full", "POST", "/v1/regions", { byte_size: 1, ttl_ms: 1000 });
        }
      },
      { memoryLimitBytes: 32 * MiB },
    ),
  );
});
