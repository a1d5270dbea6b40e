/**
 * The house rules of `src` that can be seen in its import graph: which layer may know which, who may talk to C, and which
 * modules may have effects. It reads the graph itself, types included.
 */

import { expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";

const root = join(import.meta.dir, "../..");

/** For each layer of `src`, the layers that it may import. */
const layers: Record<string, readonly string[]> = {
  memory: ["memory"],
  cuda: ["memory", "cuda"],
  loaders: ["memory", "loaders"],
  routes: ["memory", "loaders", "routes"],
  server: ["memory", "cuda", "loaders", "routes", "server"],
  "main.ts": ["server"],
};

/** Of the lower layers, what the command line may import besides `server`. */
const shownByMain = ["src/memory/error.ts", "src/memory/limits.ts"];

interface Import {
  readonly from: string;
  readonly specifier: string;
  /** Path from the root, for relative imports. */
  readonly to: string | undefined;
}

interface Module {
  readonly path: string;
  readonly exports: readonly string[];
  /** What is loaded at run time. */
  readonly loads: readonly Import[];
  /** What is named at all, types included. */
  readonly imports: readonly Import[];
  /** How many `import("…")` stand in the text, in types as well. */
  readonly importCalls: number;
}

const transpiler = new Bun.Transpiler({ loader: "ts" });

function scan(path: string, source: string): { exports: string[]; imports: Import[] } {
  const { exports, imports } = transpiler.scan(source);
  const edges = imports.map(({ path: specifier }) => {
    const to = specifier.startsWith(".") ? join(dirname(path), specifier) : undefined;
    return { from: path, specifier, to };
  });
  return { exports, imports: edges };
}

function readModule(path: string): Module {
  const source = readFileSync(join(root, path), "utf8");
  // The parser drops imports of types. Without the word they are imports like others; in a string nothing changes.
  const untyped = source
    .replaceAll(/\b(import|export)\s+type\s+(?=[{*]|\w+\s+from\b)/g, "$1 ")
    .replaceAll(/\bimport\s*\{[^}]*\}\s*from\b/g, (names) => names.replaceAll(/\btype\s+/g, ""));
  const loaded = scan(path, source);
  const importCalls = [...source.matchAll(/\bimport\(\s*["'`]/g)].length;
  return { path, exports: loaded.exports, loads: loaded.imports, imports: scan(path, untyped).imports, importCalls };
}

function readModules(folder: string): Module[] {
  if (!existsSync(join(root, folder))) return [];
  return readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((file) => /\.(ts|mts|js|mjs)$/.test(file) && !file.includes("node_modules"))
    .map((file) => readModule(join(folder, file)))
    .sort((a, b) => a.path.localeCompare(b.path));
}

const modules = readModules("src");
const imports = modules.flatMap((module) => module.imports);

const layerOf = (path: string): string | undefined => /^src\/([^/]+)/.exec(path)?.[1];
const show = ({ from, specifier }: Import): string => `${from} imports ${specifier}`;
const isWorker = (path: string): boolean => path.endsWith(".worker.ts");

function isAllowed({ from, to }: Import): boolean {
  if (to === undefined) return true;
  if (from === "src/main.ts" && shownByMain.includes(to)) return true;
  const [above, below] = [layerOf(from), layerOf(to)];
  return above !== undefined && below !== undefined && (layers[above] ?? []).includes(below);
}

/** A path through the imports that ends where it began, if there is one. */
function findCycle(graph: ReadonlyMap<string, readonly string[]>): string[] | undefined {
  const done = new Set<string>();
  const visit = (path: string, trail: readonly string[]): string[] | undefined => {
    const start = trail.indexOf(path);
    if (start >= 0) return [...trail.slice(start), path];
    if (done.has(path)) return undefined;
    for (const next of graph.get(path) ?? []) {
      const cycle = visit(next, [...trail, path]);
      if (cycle) return cycle;
    }
    done.add(path);
    return undefined;
  };
  for (const path of graph.keys()) {
    const cycle = visit(path, []);
    if (cycle) return cycle;
  }
  return undefined;
}

test("the graph that is judged holds every source file and its imports of types", () => {
  expect(modules.length).toBeGreaterThan(10);
  expect(imports.length).toBeGreaterThan(modules.length);
  const loads = modules.flatMap((module) => module.loads);
  expect(imports.length).toBeGreaterThan(loads.length);
});

test("every source file belongs to a layer", () => {
  const strays = modules.filter(({ path }) => !Object.hasOwn(layers, layerOf(path) ?? ""));
  expect(strays.map(({ path }) => path)).toEqual([]);
});

test("memory knows no other layer, cuda, loaders and routes know memory only, main knows server", () => {
  const inside = imports.filter(({ to }) => to?.startsWith("src/"));
  expect(inside.filter((edge) => !isAllowed(edge)).map(show)).toEqual([]);
});

/** The floors of `src/memory` from the ground up, as docs/ARCHITECTURE.md has them. */
const floors = [...readFileSync(join(root, "docs/ARCHITECTURE.md"), "utf8").matchAll(/^\| `(\w+)` \|/gm)].map(
  ([, name = ""]) => name,
);
const floorOf = (path: string): string | undefined => /^src\/memory\/([^/]+)\//.exec(path)?.[1];

test("the folders of src/memory are the table of docs/ARCHITECTURE.md, at most 12, beside three words for everybody", () => {
  const entries = readdirSync(join(root, "src/memory"), { withFileTypes: true });
  const names = entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
  expect(names.sort()).toEqual(floors.toSorted());
  expect(floors.length).toBeLessThanOrEqual(12);
  const loose = entries.filter((entry) => !entry.isDirectory()).map(({ name }) => name);
  expect(loose.sort()).toEqual(["error.ts", "limits.ts", "naming.ts"]);
});

test("a floor of src/memory knows those below it and none above", () => {
  const rising = imports.filter(({ from, to }) => {
    const [here, there] = [floorOf(from), floorOf(to ?? "")];
    return here !== undefined && there !== undefined && floors.indexOf(there) > floors.indexOf(here);
  });
  expect(rising.map(show)).toEqual([]);
  const fromTheWords = imports.filter(({ from, to }) => /^src\/memory\/[^/]+$/.test(from) && floorOf(to ?? ""));
  expect(fromTheWords.map(show)).toEqual([]);
});

test("memory, cuda and loaders know no HTTP", () => {
  const http = /^(hono|zod|@hono\/[^/]+)(\/|$)/;
  const low = imports.filter(({ from }) => ["memory", "cuda", "loaders"].includes(layerOf(from) ?? ""));
  expect(low.filter(({ specifier }) => http.test(specifier)).map(show)).toEqual([]);
});

test("only src/memory/os/ffi.ts talks to C", () => {
  const seams = new Set(imports.filter(({ specifier }) => specifier === "bun:ffi").map(({ from }) => from));
  expect([...seams]).toEqual(["src/memory/os/ffi.ts"]);
});

test("no file imports itself by a detour", () => {
  const graph = new Map(modules.map((module) => [module.path, module.imports.flatMap(({ to }) => to ?? [])]));
  expect(findCycle(graph)).toBeUndefined();
});

test("nothing has a default export", () => {
  const named = modules.filter(({ exports }) => exports.includes("default"));
  expect(named.map(({ path }) => path)).toEqual([]);
});

test("every relative import names a file, with its extension", () => {
  const lost = imports.filter(({ to }) => to !== undefined && !(existsSync(join(root, to)) && /\.\w+$/.test(to)));
  expect(lost.map(show)).toEqual([]);
});

test("src imports nothing from outside of it but package.json", () => {
  const outside = imports.filter(({ to }) => to !== undefined && !to.startsWith("src/") && to !== "package.json");
  expect(outside.map(show)).toEqual([]);
});

test("clients import nothing from src", () => {
  const reaching = readModules("clients").flatMap((module) => module.imports);
  expect(reaching.filter(({ to }) => to?.startsWith("src/")).map(show)).toEqual([]);
});

test("no type hides an import from this graph", () => {
  const hiding = modules.filter(({ path, importCalls }) => {
    const { imports: seen } = transpiler.scan(readFileSync(join(root, path), "utf8"));
    return importCalls !== seen.filter(({ kind }) => kind === "dynamic-import").length;
  });
  expect(hiding.map(({ path }) => path)).toEqual([]);
});

test("nothing loads main.ts or a worker: they have effects", () => {
  const loads = modules.flatMap((module) => module.loads);
  const effects = loads.filter(({ to }) => to !== undefined && (to === "src/main.ts" || isWorker(to)));
  expect(effects.map(show)).toEqual([]);
});

test("importing any other module prints nothing and keeps no process alive", async () => {
  const quiet = modules.map(({ path }) => path).filter((path) => path !== "src/main.ts" && !isWorker(path));
  const program = quiet.map((path) => `await import(${JSON.stringify(join(root, path))});`).join("\n");
  await using child = Bun.spawn([process.execPath, "--no-env-file", "-e", program], {
    cwd: root,
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    timeout: 60_000,
  });
  const [stdout, stderr, status] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  expect({ stdout, stderr, status, signal: child.signalCode }).toEqual({
    stdout: "",
    stderr: "",
    status: 0,
    signal: null,
  });
});
