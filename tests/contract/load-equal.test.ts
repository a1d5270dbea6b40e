/** Other files with the bytes of a region that stands: nothing is copied where it can stand for them, and all is where it cannot. */

import { describe, expect, test } from "bun:test";
import { readFileSync, utimesSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { limits, MiB } from "../../src/memory/limits.ts";
import { cancelOperation } from "../../src/memory/operations/run.ts";
import { deleteRegion } from "../../src/memory/regions/delete.ts";
import { type AppOptions, type TestApp, until, withApp } from "../harness/app.ts";
import { ModelFolder } from "../harness/load.ts";
import { npyFile, npyHeader, safetensorsFile } from "../harness/model-files.ts";
import { bucket, S3Service } from "../harness/s3-service.ts";
import { load, loadFile } from "./support/load.ts";
import { endOf } from "./support/operations.ts";

const bytes = Buffer.alloc(100_000, "weights");
const name = "w";

/** The same but for one byte. */
function withOther(content: Uint8Array, at = content.length - 1): Buffer {
  const other = Buffer.from(content);
  other[at] = 1;
  return other;
}

function withFolder(use: (app: TestApp, folder: ModelFolder) => Promise<void>, options: AppOptions = {}) {
  return async function useFolder() {
    using folder = new ModelFolder();
    await withApp((app) => use(app, folder), { modelRoots: [folder.path], ...options })();
  };
}

/** Loads `path` as `w`, and expects the region that stands. */
async function expectSame(app: TestApp, path: string, id: string, body: object = {}): Promise<void> {
  const before = app.footprint();
  const operation = await loadFile(app, path, { name, ...body });
  expect(operation).toMatchObject({ state: "succeeded", region: id, mode: "copy" });
  expect(operation.done_bytes).toBe(operation.total_bytes);
  expect(operation.reason).toStartWith(`that is the default; nothing was copied, as ${id} has the same bytes`);
  expect(app.footprint()).toEqual(before);
}

/** Loads `path` as `w`, and expects a region beside what stands, with that file's bytes. */
async function expectAnother(app: TestApp, path: string, id: string, body: object = {}): Promise<string> {
  const operation = await loadFile(app, path, { name, ...body });
  expect(operation).toMatchObject({ state: "succeeded", reason: "that is the default" });
  expect(operation.done_bytes).toBe(operation.total_bytes);
  const region = await app.get(operation.region as string);
  expect(region.id).not.toBe(id);
  expect(readFileSync(region.storage.path as string).equals(readFileSync(path))).toBeTrue();
  return region.id;
}

describe("a file with the bytes of a region", () => {
  test(
    "is that region, as long as that is there",
    withFolder(async (app, folder) => {
      const path = folder.writeTensor("a.safetensors", bytes);
      const id = await load(app, path, { name });
      const second = folder.writeTensor("b.safetensors", bytes);
      await expectSame(app, second, id);
      utimesSync(path, 1, 1);
      await expectSame(app, path, id);
      await expectSame(app, second, id);
      await app.remove(id);
      await expectAnother(app, second, id);
    }),
  );

  let compared = 0;
  test(
    "is that region for all who ask, and read once to find it out",
    withFolder(
      async (app, folder) => {
        const id = await load(app, folder.writeTensor("a.safetensors", bytes), { name });
        const second = folder.writeTensor("b.safetensors", bytes);
        compared = 0;
        const all = await Promise.all([1, 2, 3].map(() => load(app, second, { name })));
        expect([...all, await load(app, second, { name })]).toEqual([id, id, id, id]);
        expect(compared).toBe(1);
      },
      { onStep: (step) => void (step === "load.compared" && compared++) },
    ),
  );

  test(
    "and is packed, or lay unpacked, is that region too",
    withFolder(async (app, folder) => {
      const path = folder.writeTensor("a.safetensors", bytes);
      const id = await load(app, path, { name });
      await expectSame(app, folder.write("b.safetensors.gz", gzipSync(readFileSync(path))), id);
      const packed = gzipSync(withOther(readFileSync(path)));
      expect(await load(app, folder.write("c.safetensors.gz", packed), { name })).not.toBe(id);
    }),
  );

  test(
    "in several files is that region, and another where one of them has another byte",
    withFolder(async (app, folder) => {
      const shards = (at: number, last: number) => {
        const map = { a: `${at}-1.safetensors`, b: `${at}-2.safetensors` };
        for (const [tensor, end] of [
          ["a", 9],
          ["b", last],
        ] as const) {
          const header = { [tensor]: { dtype: "U8", shape: [5000], data_offsets: [0, 5000] } };
          folder.write(
            map[tensor],
            safetensorsFile(JSON.stringify(header), withOther(Buffer.alloc(5000, tensor), end)),
          );
        }
        return folder.write(`${at}.safetensors.index.json`, JSON.stringify({ weight_map: map }));
      };
      const id = await load(app, shards(1, 9), { name });
      await expectSame(app, shards(2, 9), id);
      expect(await load(app, shards(3, 4999), { name })).not.toBe(id);
    }),
  );

  test(
    "that is taken for bytes is a region of its own, whatever is known of its bytes",
    withFolder(async (app, folder) => {
      const id = await load(app, folder.writeTensor("a.safetensors", bytes), { name });
      const second = folder.writeTensor("b.safetensors", bytes);
      await expectSame(app, second, id);
      await expectAnother(app, second, id, { format: "raw" });
    }),
  );

  test(
    "of a form without a header is that region where its tensors are called alike",
    withFolder(async (app, folder) => {
      const content = npyFile(npyHeader("'<f4'", "(3,)"), Buffer.alloc(12, 1));
      const id = await load(app, folder.write("x.npy", content), { name });
      // An array is called as its file.
      await expectAnother(app, folder.write("y.npy", content), id);
    }),
  );

  for (const [what, byteSize, at] of [
    ["first", MiB, 0],
    ["last", MiB, MiB - 1],
    ["middle", limits.checksumChunkBytes + MiB, MiB],
  ] as const) {
    test(
      `but for the ${what} byte is another version`,
      withFolder(async (app, folder) => {
        const content = Buffer.alloc(byteSize, 3);
        const id = await load(app, folder.writeTensor("a.safetensors", content), { name });
        await expectAnother(app, folder.writeTensor("b.safetensors", withOther(content, at)), id);
      }),
    );
  }

  const others: readonly [what: string, first: object, second: object][] = [
    ["under another name", {}, { name: "other" }],
    ["in a version that was said", {}, { version: "mine" }],
    ["that is to be new", {}, { if_exists: "fail" }],
    ["in another storage", { storage: "memfd" }, {}],
    ["that may not go to make room", { evictable: true }, {}],
    ["that is to stay longer", {}, { ttl_ms: undefined, persist: true }],
    ["with another label", {}, { labels: { a: "b" } }],
  ];
  for (const [what, first, second] of others) {
    test(
      `${what} is a region of its own`,
      withFolder(async (app, folder) => {
        const id = await load(app, folder.writeTensor("a.safetensors", bytes), { name, ...first });
        await expectAnother(app, folder.writeTensor("b.safetensors", bytes), id, second);
      }),
    );
  }

  test(
    "that a newer version has followed is the newest again, by a copy",
    withFolder(async (app, folder) => {
      const old = await load(app, folder.writeTensor("a.safetensors", bytes), { name });
      const fresh = await load(app, folder.writeTensor("b.safetensors", Buffer.from(bytes).fill(1)), { name });
      expect(fresh).not.toBe(old);
      const back = await expectAnother(app, folder.writeTensor("c.safetensors", bytes), old);
      expect(await app.ok(200, "GET", `/v1/models/default/regions/${name}`)).toMatchObject({ id: back });
    }),
  );

  test(
    "that was mapped where it lies, or made by hand, is copied",
    withFolder(async (app, folder) => {
      const path = folder.writeTensor("a.safetensors", bytes);
      const mapped = await load(app, path, { name, mode: "map" });
      await expectAnother(app, folder.writeTensor("b.safetensors", bytes), mapped);
      const made = await app.create({ name: "made", byte_size: 3 });
      await app.seal(made.id);
      const raw = { name: "made", format: "raw" };
      expect(await load(app, folder.write("c", Buffer.alloc(3)), raw)).not.toBe(made.id);
    }),
  );

  test(
    "of another model is that model's own",
    withFolder(async (app, folder) => {
      await app.ok(201, "POST", "/v1/models", { name: "other" });
      const id = await load(app, folder.writeTensor("a.safetensors", bytes), { name });
      const body = { uri: `file://${folder.writeTensor("b.safetensors", bytes)}`, name, ttl_ms: 600_000 };
      const { id: begun } = await app.ok<{ id: string }>(202, "POST", "/v1/models/other/load", body);
      const { region } = await endOf(app, { id: begun });
      expect(region).not.toBe(id);
      expect(await app.get(region as string)).toMatchObject({ model: "other" });
    }),
  );
});

describe("while its bytes are compared", () => {
  /** Runs once at that step of the second load. */
  function atStep(wanted: string) {
    const at: { act: (() => void) | undefined } = { act: undefined };
    const onStep = (step: string) => {
      if (step !== wanted) return;
      const { act } = at;
      at.act = undefined;
      act?.();
    };
    return { at, onStep };
  }

  for (const [how, change] of [
    ["is touched", (path: string) => utimesSync(path, 1, 1)],
    ["shrinks", (path: string) => writeFileSync(path, "short")],
  ] as const) {
    const { at, onStep } = atStep("load.opened");
    test(
      `a file that ${how} fails by its path, and leaves what stands`,
      withFolder(
        async (app, folder) => {
          const id = await load(app, folder.writeTensor("a.safetensors", bytes), { name });
          const path = folder.writeTensor("b.safetensors", bytes);
          const before = app.footprint();
          at.act = () => change(path);
          expect((await loadFile(app, path, { name })).problem).toMatchObject({
            code: "invalid-model-file",
            detail: `Cannot load "${path}": it changed while it was loaded`,
          });
          expect(app.footprint()).toEqual(before);
          expect(await app.get(id)).toMatchObject({ in_use: false, state: "sealed" });
        },
        { onStep },
      ),
    );
  }

  const { at: comparing, onStep: onComparing } = atStep("load.compared");
  test(
    "a region that is deleted is leased until then, and the file is copied",
    withFolder(
      async (app, folder) => {
        const id = await load(app, folder.writeTensor("a.safetensors", bytes), { name });
        const gone: Promise<unknown>[] = [];
        let used: boolean | undefined;
        comparing.act = () => {
          const region = app.store.books.region(id);
          used = app.store.storages.of(region).memory.usage(region.token)?.leased;
          gone.push(deleteRegion(app.store, region, "request"));
        };
        await expectAnother(app, folder.writeTensor("b.safetensors", bytes), id);
        expect(used).toBeTrue();
        await Promise.all(gone);
        await until("the first is gone", () => app.store.books.regions.size === 1);
      },
      { onStep: onComparing },
    ),
  );

  test(
    "a region is taken in the turn of the last look, so that what is said of it is true",
    withFolder(async (app, folder) => {
      const id = await load(app, folder.writeTensor("a.safetensors", bytes), { name });
      const { layouts } = app.store;
      const compare = layouts.compare.bind(layouts);
      let asked = 0;
      layouts.compare = async (...lists) => {
        asked += 1;
        const difference = await compare(...lists);
        // Whoever looks at the tensors once more finds out nothing of what goes meanwhile.
        if (asked > 1) await deleteRegion(app.store, app.store.books.region(id), "request");
        return difference;
      };
      const { region, reason } = await loadFile(app, folder.writeTensor("b.safetensors", bytes), { name });
      expect({ region, asked }).toEqual({ region: id, asked: 1 });
      expect(reason).toContain(`nothing was copied, as ${id} has the same bytes`);
    }),
  );

  const { at: opened, onStep: onOpened } = atStep("load.opened");
  test(
    "a load that is cancelled leaves what stands, and who waits for the same goes on",
    withFolder(
      async (app, folder) => {
        const content = Buffer.alloc(4 * MiB);
        const id = await load(app, folder.writeTensor("a.safetensors", content), { name });
        const path = folder.writeTensor("b.safetensors", content);
        const before = app.footprint();
        const cancelled = Promise.withResolvers<unknown>();
        opened.act = () => {
          const running = app.store.operations.after(0, app.store.now()).find(({ state }) => state === "running");
          if (running !== undefined) cancelled.resolve(cancelOperation(running));
        };
        const [first, second] = await Promise.all([loadFile(app, path, { name }), loadFile(app, path, { name })]);
        await cancelled.promise;
        expect([first, second].map(({ state }) => state)).toEqual(["cancelled", "succeeded"]);
        expect(second).toMatchObject({ region: id });
        expect(app.footprint()).toEqual(before);
      },
      { onStep: onOpened },
    ),
  );
});

describe("an object with the bytes of a region", () => {
  function withService(use: (app: TestApp, service: S3Service, folder: ModelFolder) => Promise<void>) {
    return async function useService() {
      await using service = await S3Service.start();
      using folder = new ModelFolder();
      await withApp((app) => use(app, service, folder), {
        modelRoots: [folder.path, `s3://${bucket}/m`],
        s3: service.options,
      })();
    };
  }

  test(
    "is that region, wherever that came from, and another where a byte differs",
    withService(async (app, service, folder) => {
      const content = Buffer.alloc(3 * MiB, 5);
      const path = folder.writeTensor("a.safetensors", content);
      const id = await load(app, path, { name });
      const file = readFileSync(path);
      const uri = service.put("m/b.safetensors", file);
      await expectSame(app, uri, id);
      const asked = service.asked.length;
      await expectSame(app, uri, id);
      // Its header alone is read again.
      expect(service.asked.length).toBe(asked + 1);
      await expectSame(app, service.put("m/b.safetensors.gz", gzipSync(file)), id);
      const other = withOther(file);
      const fresh = await load(app, service.put("m/c.safetensors", other), { name });
      expect(fresh).not.toBe(id);
      expect(readFileSync((await app.get(fresh)).storage.path as string).equals(other)).toBeTrue();
    }),
  );
});
