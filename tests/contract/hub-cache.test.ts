/** A Hugging Face cache as huggingface_hub lays it out: its links are followed inside of their own repository's folder, and nowhere else. */

import { expect, test } from "bun:test";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { toRepository } from "../../src/loaders/source/hub-cache.ts";
import { type TestApp, withApp } from "../harness/app.ts";
import { ModelFolder } from "../harness/load.ts";
import { safetensorsFile } from "../harness/model-files.ts";
import { load, loadFile } from "./support/load.ts";

const revision = "e4ce9877abf3edfe10b0d82785e83bdcb973e22e";

function tensorFile(name: string, value: number): Buffer {
  const header = { [name]: { dtype: "U8", shape: [4], data_offsets: [0, 4] } };
  return safetensorsFile(JSON.stringify(header), Buffer.alloc(4, value));
}

class HubCache {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  /** A file of a revision: a link to its content. @returns its path. */
  add(repository: string, name: string, content: Uint8Array | string): string {
    const sha = new Bun.CryptoHasher("sha256").update(content).digest("hex");
    const blob = join(this.path, repository, "blobs", sha);
    mkdirSync(dirname(blob), { recursive: true });
    writeFileSync(blob, content);
    return this.link(repository, name, `${"../".repeat(name.split("/").length)}../blobs/${sha}`);
  }

  link(repository: string, name: string, target: string): string {
    const path = join(this.path, repository, "snapshots", revision, name);
    mkdirSync(dirname(path), { recursive: true });
    symlinkSync(target, path);
    return path;
  }
}

/** A test's body with an app and a cache, whose folder lies below a root or is one. */
function withCache(use: (app: TestApp, cache: HubCache, root: string) => Promise<void>, below = "") {
  return async function useCache() {
    using folder = new ModelFolder();
    await withApp((app) => use(app, new HubCache(join(folder.path, below)), folder.path), {
      modelRoots: [folder.path],
    })();
  };
}

for (const below of ["", "home/hub"]) {
  test(
    `a cache ${below === "" ? "that is a root" : "below a root"} has its files, in folders too, and sharded models`,
    withCache(async (app, cache) => {
      const one = cache.add("models--org--one", "model.safetensors", tensorFile("w", 1));
      expect(await app.get(await load(app, one))).toMatchObject({ name: "model", labels: { "tensord.file": one } });
      const deep = cache.add("models--org--one", "unet/text/deep.safetensors", tensorFile("w", 2));
      expect(await app.get(await load(app, deep))).toMatchObject({ name: "deep" });
      const weight_map: Record<string, string> = {};
      for (const [at, shard] of ["a.safetensors", "b.safetensors"].entries()) {
        cache.add("datasets--org--two", shard, tensorFile(shard, at));
        weight_map[shard] = shard;
      }
      const text = JSON.stringify({ metadata: {}, weight_map });
      const index = cache.add("datasets--org--two", "all.safetensors.index.json", text);
      expect(await app.get(await load(app, index))).toMatchObject({ name: "all", tensor_count: 2 });
    }, below),
  );
}

test(
  "a link to another repository's content is refused, by the folder that it leaves, and so is a shard that is one",
  withCache(async (app, cache, root) => {
    const other = cache.add("models--other--x", "secret.safetensors", tensorFile("w", 1));
    await load(app, other);
    const blob = new Bun.CryptoHasher("sha256").update(tensorFile("w", 1)).digest("hex");
    const across = `../../../models--other--x/blobs/${blob}`;
    const stolen = cache.link("models--org--one", "stolen.safetensors", across);
    cache.link("models--org--one", "shard.safetensors", across);
    const text = JSON.stringify({ metadata: {}, weight_map: { w: "shard.safetensors" } });
    const index = cache.add("models--org--one", "model.safetensors.index.json", text);
    for (const path of [stolen, index]) {
      const before = app.footprint();
      const { problem } = await loadFile(app, path);
      expect(problem).toMatchObject({ code: "forbidden" });
      expect(problem?.detail).toContain(`a link on its way leads out of ${join(root, "models--org--one")}`);
      expect(problem?.hint).toContain("own repository");
      expect(app.footprint()).toEqual(before);
    }
  }),
);

test(
  "a repository's folder that is itself a link out of the root is refused",
  withCache(async (app, cache) => {
    using outside = new ModelFolder();
    new HubCache(outside.path).add("models--org--one", "model.safetensors", tensorFile("w", 1));
    symlinkSync(join(outside.path, "models--org--one"), join(cache.path, "models--org--link"));
    const { problem } = await loadFile(
      app,
      join(cache.path, "models--org--link", "snapshots", revision, "model.safetensors"),
    );
    expect(problem).toMatchObject({ code: "forbidden" });
  }),
);

test(
  "a snapshot whose content is gone is not there",
  withCache(async (app, cache) => {
    const path = cache.link("models--org--one", "model.safetensors", "../../blobs/gone");
    expect((await loadFile(app, path)).problem).toMatchObject({ code: "invalid-model-file" });
  }),
);

test("the folder of a repository is the outermost one that has snapshots", () => {
  const rest = `snapshots/${revision}/a`;
  expect(toRepository(`models--o--n/${rest}`)).toEqual({ folder: "models--o--n", rest });
  expect(toRepository(`hub/models--o--n/${rest}`)).toEqual({ folder: "hub/models--o--n", rest });
  expect(toRepository(`models--a/snapshots/r/models--b/${rest}`)).toEqual({
    folder: "models--a",
    rest: `snapshots/r/models--b/${rest}`,
  });
  for (const below of [`snapshots/${revision}/a`, "models--o--n/blobs/x", "models--o/x/snapshots/a", "a"]) {
    expect(toRepository(below)).toEqual({ folder: "", rest: below });
  }
});
