/** Copies of sealed regions into any storage of this host, over a real store; the bytes are read back and compared. */

import { describe, expect, test } from "bun:test";
import { TensordError } from "../../src/memory/error.ts";
import { limits } from "../../src/memory/limits.ts";
import { cancelOperation, findOperation, startOperation, waitForOperation } from "../../src/memory/operations/run.ts";
import { type CopyTarget, copyRegion, copyWork } from "../../src/memory/regions/copy.ts";
import type { Region } from "../../src/memory/state/region.ts";
import { type TestApp, withApp } from "../harness/app.ts";
import { patienceMs } from "../harness/server-wait.ts";

const live = () => new AbortController().signal;

const plain: CopyTarget = {
  model: "default",
  name: null,
  version: "",
  storage: "shm",
  isStorageSaid: false,
  owner: { kind: "ttl", ttlMs: 600_000 },
  ifExists: "fail",
  labels: {},
  session: null,
  claim: undefined,
  evictable: false,
  onFull: "fail",
  deadlineMs: 1000,
  createdBy: null,
};

const tensors = [
  { name: "head", dtype: "U8", shape: [3] },
  { name: "w", dtype: "F32", shape: [4, 5] },
  { name: "tied", dtype: "F32", shape: [5], alias_of: "w", alias_byte_offset: 20 },
];

async function toSource(app: TestApp, body: object = {}): Promise<Region> {
  const { id } = await app.create({ tensors, ...body });
  await app.request("PUT", `/v1/regions/${id}/data?tensor=w`, Uint8Array.from({ length: 80 }, (_, at) => at) as never);
  await app.seal(id, { checksum: true });
  return app.store.books.region(id);
}

describe("a copy", () => {
  for (const from of ["shm", "shm-private", "memfd", "heap"] as const) {
    for (const to of ["shm", "shm-private", "memfd", "heap"] as const) {
      test(
        `from ${from} to ${to} has the tensors, is sealed, and has the checksum of its source`,
        withApp(async (app) => {
          const isPrivate = from === "shm-private";
          const source = await toSource(app, { storage: isPrivate ? "shm" : from, private: isPrivate });
          let done = 0;
          const onBytes = (bytes: number) => {
            done += bytes;
          };
          const { region } = await copyRegion(app.store, source, { ...plain, storage: to }, onBytes, live());
          expect(region.state).toBe("sealed");
          expect(region.storageForm).toBe(to);
          expect(region.checksum).toEqual(source.checksum);
          expect(done).toBe(copyWork(source));
          expect(await app.verify(`reg_${region.token}`)).toMatchObject({ ok: true });
          const tied = await app.request("GET", `/v1/regions/reg_${region.token}/data?tensor=tied`);
          expect(Buffer.from(tied.body as Uint8Array).toString("hex")).toStartWith("1415161718191a1b");
          expect((await app.get(`reg_${source.token}`)).in_use).toBe(false);
        }),
      );
    }
  }

  test(
    "of a region that is not sealed is refused, and leaves nothing",
    withApp(async (app) => {
      const source = app.store.books.region((await app.create()).id);
      const before = app.footprint();
      const copy = copyRegion(app.store, source, plain, () => {}, live());
      expect(await copy.catch((error) => error.code)).toBe("region-not-sealed");
      expect(app.footprint()).toEqual(before);
    }),
  );

  test(
    "that takes a name over stands under it, and what had it goes",
    withApp(async (app) => {
      const source = await toSource(app);
      const old = await app.create({ name: "weights" });
      const target: CopyTarget = { ...plain, name: "weights", ifExists: "replace" };
      const { region } = await copyRegion(app.store, source, target, () => {}, live());
      const found = await app.ok<{ id: string; state: string }>(200, "GET", "/v1/models/default/regions/weights");
      expect(found).toMatchObject({ id: `reg_${region.token}`, state: "sealed" });
      expect((await app.request("GET", `/v1/regions/${old.id}`)).body).toMatchObject({ code: "region-not-found" });
    }),
  );

  test(
    "of bytes that changed after the seal is refused, and leaves nothing",
    withApp(async (app) => {
      const source = await toSource(app);
      const damaged = { ...source, checksum: source.checksum && { ...source.checksum, value: "0".repeat(16) } };
      const before = app.footprint();
      const copy = copyRegion(app.store, damaged as Region, plain, () => {}, live());
      expect(await copy.catch((error) => error.code)).toBe("io-error");
      expect(app.footprint()).toEqual(before);
    }),
  );

  for (const storage of ["shm", "memfd"] as const) {
    test(
      `into ${storage} that is cancelled in the middle leaves nothing, and lets go of its source`,
      withApp(async (app) => {
        const source = await toSource(app);
        const before = app.footprint();
        const request = { model: "default", createdBy: null, requestKey: null, source: "reg_", totalBytes: 1 };
        let chunks = 0;
        const operation = startOperation(app.store, { kind: "copy", ...request }, async (onBytes, signal) => {
          const onChunk = (bytes: number) => {
            chunks += 1;
            onBytes(bytes);
            void cancelOperation(operation);
          };
          const { region } = await copyRegion(app.store, source, { ...plain, storage }, onChunk, signal);
          return region.token;
        });
        await operation.ended;
        expect(operation.state).toBe("cancelled");
        expect(chunks).toBe(1);
        expect(operation.failure).toBeInstanceOf(TensordError);
        expect(app.footprint()).toEqual(before);
        expect((await app.get(`reg_${source.token}`)).in_use).toBe(false);
        expect(app.store.operations.running).toBe(0);
      }),
    );
  }
});

describe("an operation", () => {
  const request = { kind: "copy", model: "default", createdBy: null, source: "reg_", totalBytes: 8 } as const;

  test(
    "that is asked for again under its key is the same one; another's key is another's",
    withApp(async ({ store }) => {
      const work = async () => "reg_result";
      const first = startOperation(store, { ...request, requestKey: "load" }, work);
      expect(startOperation(store, { ...request, requestKey: "load" }, work)).toBe(first);
      expect(startOperation(store, { ...request, requestKey: "load", createdBy: "else" }, work)).not.toBe(first);
      await waitForOperation(store, first, patienceMs, live());
      expect(first).toMatchObject({ state: "succeeded", result: "reg_result", doneBytes: 8 });
      expect(findOperation(store, `op_${first.token}`)).toBe(first);
    }),
  );

  test(
    "that fails says with what, and takes nobody along",
    withApp(async ({ store }) => {
      const failure = new TensordError("io-error", "no");
      const operation = startOperation(store, { ...request, requestKey: null }, () => Promise.reject(failure));
      await operation.ended;
      expect(operation).toMatchObject({ state: "failed", failure, result: null });
    }),
  );

  test(
    "beyond the most that may run is refused, and runs once another has ended",
    withApp(async ({ store }) => {
      const gate = Promise.withResolvers<string>();
      const begin = () => startOperation(store, { ...request, requestKey: null }, () => gate.promise);
      const all = Array.from({ length: limits.operationsRunning }, begin);
      expect(begin).toThrow(expect.objectContaining({ code: "too-many-requests" }));
      gate.resolve("reg_result");
      await Promise.all(all.map(({ ended }) => ended));
      await begin().ended;
      expect(store.operations.running).toBe(0);
    }),
  );
});
