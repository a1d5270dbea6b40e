/** Model files become regions: byte for byte, once, whatever they are packed in; and what becomes of files that change. */

import { describe, expect, test } from "bun:test";
import { appendFileSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { limits, MiB } from "../../src/memory/limits.ts";
import { type AppOptions, type TestApp, withApp } from "../harness/app.ts";
import { ModelFolder, tinyPath } from "../harness/load.ts";
import { ggufFile, npyFile, npyHeader, safetensorsFile } from "../harness/model-files.ts";
import { load, loadFile } from "./support/load.ts";
import { endOf } from "./support/operations.ts";

const tiny = readFileSync(tinyPath);

/** A test's body with an app and a folder whose files it loads. */
function withFolder(use: (app: TestApp, folder: ModelFolder) => Promise<void>, options: AppOptions = {}) {
  return async function useFolder() {
    using folder = new ModelFolder();
    await withApp((app) => use(app, folder), { modelRoots: [folder.path], ...options })();
  };
}

describe("a safetensors file", () => {
  for (const storage of ["shm", "memfd", "heap"]) {
    test(
      `is in ${storage} as it was, sealed, with its tensors and a checksum`,
      withApp(async (app) => {
        const id = await load(app, tinyPath, { storage });
        const region = await app.get(id);
        expect(region).toMatchObject({ name: "tiny", state: "sealed", storage: { byte_size: tiny.length } });
        expect(region.version).toMatch(/^file-[0-9a-f]{16}$/);
        const places = region.tensors.map(({ name, dtype, shape }) => [name, dtype, shape]);
        expect(places).toEqual([
          ["w", "F32", [2, 2]],
          ["b", "I8", [3]],
        ]);
        expect(await app.verify(id)).toMatchObject({ ok: true });
        const w = await app.request("GET", `/v1/regions/${id}/data?tensor=w`);
        expect(Buffer.from(w.body as Uint8Array).equals(tiny.subarray(-19, -3))).toBeTrue();
        if (region.storage.path !== null) expect(readFileSync(region.storage.path).equals(tiny)).toBeTrue();
      }),
    );
  }

  for (const [suffix, pack] of [
    ["gz", gzipSync],
    ["zst", zstdCompressSync],
  ] as const) {
    test(
      `that is packed as ${suffix} is in the region as it was before`,
      withFolder(async (app, folder) => {
        const packed = folder.write(`tiny.safetensors.${suffix}`, pack(tiny));
        const region = await app.get(await load(app, packed));
        expect(region.name).toBe("tiny");
        expect(readFileSync(region.storage.path as string).equals(tiny)).toBeTrue();
        expect(await app.verify(region.id)).toMatchObject({ ok: true });
      }),
    );
  }

  test(
    "of many tensors and of more than a window is loaded, and counts what it has done",
    withFolder(
      async (app, folder) => {
        const each = 70_001;
        const count = 1_500;
        const header = Object.fromEntries(
          Array.from({ length: count }, (_, at) => [
            `layer.${at}.weight`,
            { dtype: "U8", shape: [each], data_offsets: [at * each, (at + 1) * each] },
          ]),
        );
        const data = Buffer.alloc(each * count).map((_, at) => at % 127);
        const path = folder.write("many.safetensors", safetensorsFile(JSON.stringify(header), data));
        const operation = await loadFile(app, path);
        expect(operation).toMatchObject({ kind: "load", state: "succeeded", source: path });
        expect(operation.done_bytes).toBe(operation.total_bytes);
        const id = operation.region as string;
        expect((await app.get(id)).tensors).toHaveLength(count);
        const last = await app.request("GET", `/v1/regions/${id}/data?tensor=layer.${count - 1}.weight`);
        const got = Buffer.from(last.body as Uint8Array);
        expect(got.equals(data.subarray(-each))).toBeTrue();
        expect(await load(app, path)).toBe(id);
      },
      { memoryLimitBytes: 512 * MiB },
    ),
  );
});

test(
  "GGUF and .npy files are kept byte for byte, so that engines map them by the path",
  withFolder(async (app, folder) => {
    const gguf = ggufFile({ tensors: [{ name: "t", type: 0, extents: [2, 2], begin: 0 }], data: Buffer.alloc(16, 7) });
    const npy = npyFile(npyHeader("'<f4'", "(3,)"), Buffer.alloc(12, 1));
    for (const [name, content] of [
      ["a.gguf", gguf],
      ["b.npy", npy],
    ] as const) {
      const region = await app.get(await load(app, folder.write(name, content)));
      expect(region.storage.format).toBe("raw");
      expect(readFileSync(region.storage.path as string).equals(content)).toBeTrue();
      expect(region.tensors).toHaveLength(1);
      const tensor = region.tensors[0];
      const data = await app.request("GET", `/v1/regions/${region.id}/data?tensor=${tensor?.name}`);
      const { byte_offset: from = 0, byte_size: size = 0 } = tensor ?? {};
      expect(Buffer.from(data.body as Uint8Array).equals(content.subarray(from, from + size))).toBeTrue();
    }
  }),
);

test(
  "quantised blocks of a GGUF file are bytes that say what they stand for",
  withFolder(async (app, folder) => {
    const content = ggufFile({ tensors: [{ name: "q", type: 12, extents: [256, 2], begin: 0 }], data: 288 });
    const id = await load(app, folder.write("q.gguf", content));
    const logical = { type: "Q4_K", shape: [2, 256] };
    expect((await app.get(id)).tensors).toMatchObject([{ name: "q", dtype: "U8", shape: [2, 144], logical }]);
  }),
);

test(
  "whatever is in a file, raw takes it for bytes",
  withFolder(async (app, folder) => {
    const path = folder.write("model.onnx", "anything at all");
    expect((await loadFile(app, path)).problem).toMatchObject({ code: "unsupported-format" });
    const region = await app.get(await load(app, path, { format: "raw", name: "onnx" }));
    expect(region.tensors).toMatchObject([{ name: "data", dtype: "U8", shape: [15], byte_offset: 0 }]);
    expect(readFileSync(region.storage.path as string, "utf8")).toBe("anything at all");
  }),
);

test(
  "a region says of which file it is, by its end where that is long, unless its maker says otherwise",
  withFolder(async (app, folder) => {
    const folders = "x".repeat(200);
    mkdirSync(join(folder.path, folders, folders), { recursive: true });
    const path = folder.writeTensor(`${folders}/${folders}/w.safetensors`, Buffer.alloc(1));
    const { labels } = await app.get(await load(app, path));
    expect(labels["tensord.file"]).toHaveLength(limits.labelValueCharacters);
    expect(labels["tensord.file"]).toStartWith("…x");
    expect(labels["tensord.file"]).toEndWith("x/w.safetensors");
    const asked = { version: "other", labels: { a: "b", "tensord.file": "mine" } };
    expect((await app.get(await load(app, path, asked))).labels).toEqual({ a: "b", "tensord.file": "mine" });
  }),
);

describe("one file", () => {
  test(
    "is loaded once, also by those who ask at the same time",
    withFolder(async (app, folder) => {
      const path = folder.writeTensor("w.safetensors", Buffer.alloc(3 * MiB, 5));
      const all = await Promise.all([load(app, path), load(app, path), load(app, path)]);
      expect(new Set([...all, await load(app, path)]).size).toBe(1);
      const refused = await loadFile(app, path, { if_exists: "fail" });
      expect(refused.problem).toMatchObject({ code: "name-taken" });
      expect(app.store.books.regions.size).toBe(1);
    }),
  );

  test(
    "that has changed is another version, beside what it was",
    withFolder(async (app, folder) => {
      const path = folder.writeTensor("w.safetensors", Buffer.alloc(10, 1));
      const old = await load(app, path);
      renameSync(folder.writeTensor("new.safetensors", Buffer.alloc(10, 2)), path);
      const fresh = await load(app, path);
      expect(fresh).not.toBe(old);
      const found = await app.ok<{ id: string }>(200, "GET", "/v1/models/default/regions/w");
      expect(found.id).toBe(fresh);
      expect(await load(app, path, { version: "mine" })).toBe(await load(app, path, { version: "mine" }));
    }),
  );
});

describe("a file that changes while it is loaded", () => {
  const step = "load.opened";
  for (const [how, change] of [
    ["shrinks", (path: string) => writeFileSync(path, "short")],
    ["grows", (path: string) => appendFileSync(path, "more")],
    ["is replaced", (path: string) => renameSync(`${path}.new`, path)],
  ] as const) {
    for (const suffix of ["", ".gz"]) {
      let path = "";
      test(
        `and ${how} fails by its path, and leaves nothing: w.safetensors${suffix}`,
        withFolder(
          async (app, folder) => {
            const pack = (bytes: Buffer) => (suffix === "" ? bytes : gzipSync(bytes));
            const content = readFileSync(folder.writeTensor("plain", Buffer.alloc(100_000, 3)));
            const whole = folder.write(`w.safetensors${suffix}`, pack(content));
            folder.write(`w.safetensors${suffix}.new`, pack(content));
            const before = app.footprint();
            path = whole;
            const { problem } = await loadFile(app, whole);
            path = "";
            expect(problem).toMatchObject({
              code: "invalid-model-file",
              detail: `Cannot load "${whole}": it changed while it was loaded`,
            });
            expect(app.footprint()).toEqual(before);
          },
          { onStep: (seen) => void (seen === step && path !== "" && change(path)) },
        ),
      );
    }
  }
});

test(
  "a load that is cancelled leaves nothing",
  withFolder(async (app, folder) => {
    const path = folder.writeTensor("w.safetensors", Buffer.alloc(limits.checksumChunkBytes + 5));
    const before = app.footprint();
    const body = { uri: `file://${path}`, ttl_ms: 600_000 };
    const { id } = await app.ok<{ id: string }>(202, "POST", "/v1/models/default/load", body);
    expect(await app.ok(200, "DELETE", `/v1/operations/${id}`)).toMatchObject({ state: "cancelled", region: null });
    expect(await endOf(app, { id })).toMatchObject({ problem: { code: "cancelled" } });
    expect(app.footprint()).toEqual(before);
  }),
);
