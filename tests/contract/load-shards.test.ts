/** A model in several files is one region: each tensor as it was, sealed in one turn, once for each state of all of them. */

import { describe, expect, test } from "bun:test";
import { appendFileSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { openModelFile } from "../../src/loaders/formats/open-model-file.ts";
import { type AppOptions, type TestApp, withApp } from "../harness/app.ts";
import { ModelFolder } from "../harness/load.ts";
import { readerOf, safetensorsFile } from "../harness/model-files.ts";
import { load, loadFile } from "./support/load.ts";

const index = "model.safetensors.index.json";
const shardOf = (at: number) => `model-0000${at}-of-00003.safetensors`;

/** Tensors of several sizes of elements, of which one has no elements, and bytes that say which each is. */
const shards = [
  [
    ["a", "F32", [2, 3], 24],
    ["b", "U8", [5], 5],
  ],
  [
    ["c", "F16", [2], 4],
    ["none", "F32", [0, 7], 0],
    ["d", "F32", [100], 400],
  ],
  [["e", "F32", [1], 4]],
] as const;

/** Writes a model in three files. @returns the path of its index. */
function writeModel(folder: ModelFolder): string {
  const map: Record<string, string> = {};
  for (const [at, tensors] of shards.entries()) {
    let end = 0;
    const header = tensors.map(([name, dtype, shape, byteSize]) => {
      map[name] = shardOf(at + 1);
      const begin = end;
      end += byteSize;
      return [name, { dtype, shape, data_offsets: [begin, end] }];
    });
    const data = Buffer.concat(tensors.map(([name, , , byteSize]) => Buffer.alloc(byteSize, name)));
    folder.write(shardOf(at + 1), safetensorsFile(JSON.stringify(Object.fromEntries(header)), data));
  }
  return folder.write(index, JSON.stringify({ metadata: { total_size: 437 }, weight_map: map }));
}

function withModel(use: (app: TestApp, folder: ModelFolder, path: string) => Promise<void>, options: AppOptions = {}) {
  return async function useModel() {
    using folder = new ModelFolder();
    const path = writeModel(folder);
    await withApp((app) => use(app, folder, path), { modelRoots: [folder.path], ...options })();
  };
}

describe("a sharded model", () => {
  for (const storage of ["shm", "memfd", "heap"]) {
    test(
      `is one region in ${storage}, with all tensors of all files`,
      withModel(async (app, _, path) => {
        const id = await load(app, path, { storage });
        const region = await app.get(id);
        expect(region).toMatchObject({ name: "model", state: "sealed", labels: { "tensord.file": path } });
        const wanted = shards.flat().map(([name, dtype, shape]) => [name, dtype, shape]);
        expect(region.tensors.map(({ name, dtype, shape }) => [name, dtype, shape]).toSorted()).toEqual(
          wanted.toSorted() as never,
        );
        for (const [name, , , byteSize] of shards.flat()) {
          const { body } = await app.request("GET", `/v1/regions/${id}/data?tensor=${name}`);
          expect(Buffer.from((body ?? "") as Uint8Array).toString()).toBe(name.repeat(byteSize).slice(0, byteSize));
        }
        expect(region.tensors.every(({ aligned }) => aligned)).toBeTrue();
        expect(await app.verify(id)).toMatchObject({ ok: true });
        if (region.storage.path === null) return;
        // As a stock reader takes it: the header and nothing else says what there is.
        const found = await openModelFile(readerOf(readFileSync(region.storage.path)), "region");
        expect(found.tensors.map(({ name }) => name).toSorted()).toEqual(
          wanted.map(([name]) => name as string).toSorted(),
        );
      }),
    );
  }

  test(
    "is loaded once, and anew when one of its files has changed",
    withModel(async (app, folder, path) => {
      const all = await Promise.all([load(app, path), load(app, path)]);
      expect(new Set(all).size).toBe(1);
      const shard = join(folder.path, shardOf(2));
      const bytes = readFileSync(shard);
      bytes[bytes.length - 1] = 1;
      writeFileSync(shard, bytes);
      const fresh = await load(app, path);
      expect(fresh).not.toBe(all[0] as string);
      expect(app.store.books.regions.size).toBe(2);
    }),
  );

  const broken: readonly (readonly [
    what: string,
    spoil: (folder: ModelFolder) => void,
    file: string,
    reason: string,
  ])[] = [
    ["lacks a file", (folder) => rmSync(join(folder.path, shardOf(3))), shardOf(3), "it is not there"],
    ["has a file that is cut off", (folder) => folder.write(shardOf(2), "short"), shardOf(2), ""],
    [
      "has a file with another tensor than its index says",
      (folder) => folder.writeTensor(shardOf(3), Buffer.alloc(1)),
      shardOf(3),
      "the index says",
    ],
    [
      "has a file that is compressed",
      (folder) => folder.write(shardOf(3), gzipSync(readFileSync(join(folder.path, shardOf(3))))),
      shardOf(3),
      "compressed",
    ],
  ];
  for (const [what, spoil, file, reason] of broken) {
    test(
      `that ${what} is refused by the path of that file, and leaves nothing`,
      withModel(async (app, folder, path) => {
        spoil(folder);
        const before = app.footprint();
        const { problem } = await loadFile(app, path);
        expect(problem?.code).toBeOneOf(["invalid-model-file", "unsupported-format"]);
        expect(problem?.detail).toStartWith(`Cannot load "${join(folder.path, file)}": `);
        expect(problem?.detail).toContain(reason);
        expect(app.footprint()).toEqual(before);
      }),
    );
  }

  let changing = "";
  test(
    "of which a file changes while it is loaded fails, and leaves nothing",
    withModel(
      async (app, folder, path) => {
        const before = app.footprint();
        changing = join(folder.path, shardOf(2));
        const { problem } = await loadFile(app, path);
        changing = "";
        expect(problem).toMatchObject({
          code: "invalid-model-file",
          detail: `Cannot load "${path}": it changed while it was loaded`,
        });
        expect(app.footprint()).toEqual(before);
      },
      { onStep: (step) => void (step === "load.opened" && changing !== "" && appendFileSync(changing, "more")) },
    ),
  );
});
