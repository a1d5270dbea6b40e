/** What is loaded before a server is ready: all of it, again and again where a file is not there yet; and what its file may say. */

import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { FileLane } from "../../src/loaders/file-lane.ts";
import { TensordError } from "../../src/memory/error.ts";
import { readPreload } from "../../src/server/preload/preload-file.ts";
import { Preloader } from "../../src/server/preload/preloader.ts";
import { type TestApp, until, withApp } from "../harness/app.ts";
import { ModelFolder, toUri } from "../harness/load.ts";

function refusalOf(act: () => unknown): TensordError | undefined {
  try {
    act();
  } catch (error) {
    if (error instanceof TensordError) return error;
    throw error;
  }
  return undefined;
}

/** A test's body with an app, a folder of models, and a preloader of what is written in a file there. */
function withPreloader(content: (folder: ModelFolder) => object, use: (given: Given) => Promise<void>) {
  return withApp(async (app) => {
    using folder = new ModelFolder();
    using files = new FileLane();
    const loading = { roots: [folder.path], files };
    const preloads = readPreload(folder.write("models.json", JSON.stringify(content(folder))), loading.roots);
    const told: string[] = [];
    const tell = (message: string) => told.push(message);
    const preloader = new Preloader(preloads, {
      store: app.store,
      loading,
      onFailure: tell,
      onLoaded: tell,
      pauseMs: 1,
    });
    try {
      await use({ app, folder, preloader, told });
    } finally {
      app.store.stop();
      await preloader.ended();
    }
  });
}

interface Given {
  readonly app: TestApp;
  readonly folder: ModelFolder;
  readonly preloader: Preloader;
  readonly told: readonly string[];
}

describe("a server that loads models first", () => {
  test(
    "is ready when all of them are there, under the models that it registers, and kept",
    withPreloader(
      ({ path }) => [
        { uri: toUri(join(path, "a.safetensors")), model: "llama", name: "weights" },
        { uri: toUri(join(path, "b.bin")), format: "raw", linger_ms: 60_000, evictable: true },
      ],
      async ({ app, folder, preloader }) => {
        folder.writeTensor("a.safetensors", Buffer.alloc(10));
        folder.write("b.bin", "bytes");
        expect(refusalOf(() => preloader.refuseUnlessReady())).toMatchObject({
          code: "not-ready",
          message: "Cannot take requests yet: 2 of 2 models of TENSORD_PRELOAD are not loaded yet",
        });
        preloader.start();
        await until("it is ready", () => refusalOf(() => preloader.refuseUnlessReady()) === undefined);
        const { items } = await app.ok<{ items: object[] }>(200, "GET", "/v1/regions");
        expect(items).toMatchObject([
          { model: "llama", name: "weights", state: "sealed", owner: { kind: "persist" }, evictable: false },
          { model: "default", name: "b.bin", state: "sealed", owner: { kind: "linger" }, evictable: true },
        ]);
      },
    ),
  );

  test(
    "says which file it lacks, loads the others meanwhile, and is ready once that is there",
    withPreloader(
      ({ path }) => ["late", "there"].map((name) => ({ uri: toUri(join(path, `${name}.safetensors`)) })),
      async ({ app, folder, preloader, told }) => {
        folder.writeTensor("there.safetensors", Buffer.alloc(10));
        preloader.start();
        await until("the other is there", () => told.some((message) => message.startsWith("loaded ")));
        const late = join(folder.path, "late.safetensors");
        const refusal = refusalOf(() => preloader.refuseUnlessReady());
        expect(refusal?.code).toBe("not-ready");
        expect(refusal?.message).toBe(
          `Cannot take requests yet: 1 of 2 models of TENSORD_PRELOAD is not loaded yet. Cannot load "${late}": it is not there`,
        );
        expect(refusal?.facts.hint).toContain("as the server sees it");
        expect(told).toContain(`Cannot be ready: Cannot load "${late}": it is not there`);
        folder.writeTensor("late.safetensors", Buffer.alloc(10));
        await until("it is ready", () => refusalOf(() => preloader.refuseUnlessReady()) === undefined);
        expect(app.store.books.regions.size).toBe(2);
      },
    ),
  );

  test(
    "stops at once while a file is not there",
    withPreloader(
      ({ path }) => [{ uri: toUri(join(path, "none.gguf")) }],
      async ({ app, preloader, told }) => {
        preloader.start();
        await until("it has failed", () => told.length > 0);
        app.store.stop();
        await preloader.ended();
        expect(refusalOf(() => preloader.refuseUnlessReady())?.code).toBe("shutting-down");
      },
    ),
  );
});

describe("a file of models", () => {
  const cases: readonly (readonly [what: string, text: string, reason: string])[] = [
    ["that is no list", "uri: file:///models/a", "expected array"],
    ["without a model", "[]", ">=1"],
    ["with a field that there is not", "- { uri: 'file:///models/a', modle: x }", "modle"],
    ["with a key of a request", "- { uri: 'file:///models/a', key: x }", "key"],
    ["whose file is below no root", "- uri: file:///etc/passwd", "below none of /models"],
    ["that is no YAML", "- {", ""],
  ];
  for (const [what, text, reason] of cases) {
    test(`${what} is refused, and says what is wrong`, () => {
      using folder = new ModelFolder();
      const refusal = refusalOf(() => readPreload(folder.write("models.yaml", text), ["/models"]));
      expect(refusal?.message).toContain(reason);
      expect(refusal?.facts.hint).toBeString();
    });
  }

  test("that is not there is named", () => {
    expect(refusalOf(() => readPreload("/nowhere/models.yaml", []))?.message).toContain("/nowhere/models.yaml");
  });
});
