/** Which files are loaded: those below a root, whatever links say, and of them what are files. Each refusal names the path. */

import { describe, expect, test } from "bun:test";
import { execFileSync } from "node:child_process";
import { mkdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { toModelPath, toRegionName } from "../../src/loaders/source/model-roots.ts";
import { withApp } from "../harness/app.ts";
import { ModelFolder } from "../harness/load.ts";
import { openBelow } from "../harness/open-files.ts";
import { load, loadFile } from "./support/load.ts";

const refusalOf = (uri: string, roots: readonly string[] = ["/models"]) => {
  try {
    return toModelPath(uri, roots);
  } catch (error) {
    return String((error as Error).message);
  }
};

describe("a URI", () => {
  for (const [uri, below] of [
    ["file:///models/a.safetensors", "a.safetensors"],
    ["file://localhost/models/org%20x/a.gguf", "org x/a.gguf"],
    ["file:///models/x/../a", "a"],
    ["file:///models/..a", "..a"],
  ] as const) {
    test(`${uri} is ${below} below its root`, () => {
      expect(toModelPath(uri, ["/models", "/data"])).toMatchObject({ root: "/models", below });
    });
  }

  test("is below the innermost of several roots", () => {
    const found = toModelPath("file:///models/hf/a", ["/models", "/models/hf", "/mod"]);
    expect(found).toEqual({ path: "/models/hf/a", root: "/models/hf", below: "a" });
  });

  for (const [uri, reason] of [
    ["/models/a", "it is no URI"],
    ["https://host/a", "its scheme is https"],
    ["file://host/models/a", "it is on the host host"],
    ["file:///models/a?x", "it has a query"],
    ["file:///models/a%00", "it has a NUL"],
    ["file:///models/a%zz", "it is no URI"],
    ["file:///etc/passwd", "it is below none of /models"],
    ["file:///models/../etc/passwd", "it is below none of /models"],
    ["file:///models", "it is below none of /models"],
    ["file:///models2/a", "it is below none of /models"],
    ["file:///models/%2e%2e/etc", "it is below none of /models"],
  ] as const) {
    test(`${uri} is refused: ${reason}`, () => {
      expect(refusalOf(uri)).toContain(reason);
    });
  }

  test("is refused where there is no root at all, and says whose it is to name one", () => {
    expect(refusalOf("file:///models/a", [])).toBe('Cannot load "/models/a": this server loads no files');
  });
});

test("a file's name becomes a region's", () => {
  const names = ["model.safetensors", "Qwen 7b.Q4_K.gguf.zst", ".hidden.npy", "ä", "weights"].map((name) =>
    toRegionName(`/models/${name}`),
  );
  expect(names).toEqual(["model", "Qwen-7b.Q4_K", "hidden", "-", "weights"]);
  expect(toRegionName(`/${"x".repeat(300)}.gguf`)).toHaveLength(128);
  expect(toRegionName("/...")).toBe("model");
});

describe("a path below a root", () => {
  const bytes = Buffer.from([1, 2, 3]);
  const cases: readonly [
    what: string,
    code: string,
    reason: string,
    make: (folder: ModelFolder, other: string) => string,
  ][] = [
    ["that is not there", "invalid-model-file", "it is not there", (folder) => join(folder.path, "none.gguf")],
    ["that is a directory", "invalid-model-file", "it is a directory", (folder) => makeFolder(folder)],
    ["that is a FIFO", "invalid-model-file", "it is a FIFO", (folder) => makeFifo(folder)],
    ["that is empty", "invalid-model-file", "", (folder) => folder.write("a.safetensors", "")],
    ["that is a link out of it", "forbidden", "leads out of", (folder, other) => link(folder, other)],
    [
      "behind a folder that is a link out of it",
      "forbidden",
      "leads out of",
      (folder, other) => linkFolder(folder, other),
    ],
    ["that is a link of /proc", "forbidden", "leads out of", (folder) => linkTo(folder, "/proc/self/exe")],
    ["that is a link to itself", "forbidden", "leads out of", (folder) => linkTo(folder, "loop")],
    ["that is a device behind a link", "forbidden", "leads out of", (folder) => linkTo(folder, "/dev/zero")],
    [
      "that is a pickle",
      "unsupported-format",
      "pickle",
      (folder) => folder.write("a.pt", Buffer.from("\x80\x04K.", "latin1")),
    ],
  ];
  for (const [what, code, reason, make] of cases) {
    test(`${what} is refused by its path, and leaves neither region nor descriptor`, async () => {
      using folder = new ModelFolder();
      using other = new ModelFolder();
      const outside = other.writeTensor("secret.safetensors", bytes);
      await withApp(
        async (app) => {
          await load(app, folder.writeTensor("first.safetensors", bytes));
          const path = make(folder, outside);
          const before = app.footprint();
          const { state, problem } = await loadFile(app, path);
          expect({ state, code: problem?.code }).toEqual({ state: "failed", code });
          expect(problem?.detail).toStartWith(`Cannot load "${path}": `);
          expect(problem?.detail).toContain(reason);
          expect(problem?.hint).toBeString();
          expect(app.footprint()).toEqual(before);
          expect(openBelow(folder.path)).toEqual([]);
        },
        { modelRoots: [folder.path] },
      )();
    });
  }

  test("that is a link inside of it is followed, as in a Hugging Face cache", async () => {
    using folder = new ModelFolder();
    mkdirSync(join(folder.path, "snapshots/main"), { recursive: true });
    mkdirSync(join(folder.path, "blobs"));
    folder.writeTensor("blobs/abc", bytes);
    symlinkSync("../../blobs/abc", join(folder.path, "snapshots/main/model.safetensors"));
    await withApp(
      async (app) => {
        const region = await app.get(await load(app, join(folder.path, "snapshots/main/model.safetensors")));
        expect(region).toMatchObject({ name: "model", tensors: [{ name: "w" }] });
      },
      { modelRoots: [folder.path] },
    )();
  });
});

test(
  "a file that is below no root is refused at once, with what to do",
  withApp(async (app) => {
    const body = { uri: "file:///etc/passwd", ttl_ms: 1000 };
    const { hint } = await app.refused("forbidden", "POST", "/v1/models/default/load", body);
    expect(hint).toContain("TENSORD_MODEL_ROOTS");
  }),
);

function makeFolder(folder: ModelFolder): string {
  const path = join(folder.path, "folder.safetensors");
  mkdirSync(path);
  return path;
}

function makeFifo(folder: ModelFolder): string {
  const path = join(folder.path, "fifo.safetensors");
  execFileSync("mkfifo", [path]);
  return path;
}

function linkTo(folder: ModelFolder, target: string): string {
  const path = join(folder.path, "loop");
  symlinkSync(target, path);
  return path;
}

function link(folder: ModelFolder, outside: string): string {
  const path = join(folder.path, "link.safetensors");
  symlinkSync(outside, path);
  return path;
}

function linkFolder(folder: ModelFolder, outside: string): string {
  const path = join(folder.path, "folder");
  symlinkSync(join(outside, ".."), path);
  return join(path, "secret.safetensors");
}
