/** The repository's tidiness, as far as reading its files can tell: docs, sizes, pins, white space. */

import { expect, test } from "bun:test";
import { statSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { paths, read, readText, root, type TextFile } from "../harness/repository.ts";

const self = relative(root, import.meta.path);

const maximumLines = 350;

// Hostile files are what they are on purpose.
const isHostile = (path: string): boolean => path.startsWith("tests/hostile/") && !/\.(md|ts)$/.test(path);
const files = paths.filter((path) => !isHostile(path)).flatMap(readText);
const sources = files.filter(({ path }) => path.startsWith("src/") && path.endsWith(".ts"));

/** `path:line` of each line that `isBad` picks. */
const linesWhere = (among: readonly TextFile[], isBad: (line: string) => boolean): string[] =>
  among.flatMap(({ path, lines }) => lines.flatMap((line, index) => (isBad(line) ? `${path}:${index + 1}` : [])));

test("the files that are judged are the repository's", () => {
  const judged = files.map(({ path }) => path);
  expect(judged).toContain("package.json");
  expect(judged).toContain(self);
  expect(sources.length).toBeGreaterThan(10);
});

test("each source file opens with a doc comment", () => {
  const bare = sources.filter(({ text }) => !/^(#!.*\n)?\/\*\*\s/.test(text));
  expect(bare.map(({ path }) => path)).toEqual([]);
});

// A list is read by its lines, and every limit is one of them.
const lists = ["src/memory/limits.ts"];

test(`no source file but a list is longer than ${maximumLines} lines`, () => {
  const long = sources.filter(({ path, lines }) => !lists.includes(path) && lines.length - 1 > maximumLines);
  expect(long.map(({ path, lines }) => `${path}: ${lines.length - 1}`)).toEqual([]);
});

test("every TODO and FIXME names its issue", () => {
  const others = files.filter(({ path }) => path !== self && !path.endsWith("lock.json"));
  expect(linesWhere(others, (line) => /\b(TODO|FIXME|XXX)\b/.test(line) && !/#\d+/.test(line))).toEqual([]);
});

test("documents that a comment or a docstring cites are in the repository", () => {
  const code = files.filter(({ path }) => path !== self && /\.(ts|mjs|py)$/.test(path));
  const known = new Set(paths);
  const isThere = (path: string, cited: string): boolean =>
    [cited, `docs/${cited}`, join(dirname(path), cited)].some((place) => known.has(place.replace(/^\.\.\//, "")));
  const missing = code.flatMap(({ path, text }) =>
    [...text.matchAll(/[\w/.-]+\.md\b/g)]
      .filter(([cited]) => !isThere(path, cited))
      .map(([cited]) => `${path}: ${cited}`),
  );
  expect(missing).toEqual([]);
});

test("src prints by its logger, and main.ts alone to the console", () => {
  const quiet = sources.filter(({ path }) => path !== "src/main.ts");
  expect(linesWhere(quiet, (line) => line.includes("console.log"))).toEqual([]);
});

test("package.json pins every version", () => {
  const { dependencies, devDependencies } = JSON.parse(read("package.json"));
  const versions: [string, string][] = Object.entries({ ...dependencies, ...devDependencies });
  expect(versions.length).toBeGreaterThan(0);
  expect(versions.filter(([, version]) => !/^\d+\.\d+\.\d+(-[\w.]+)?$/.test(version))).toEqual([]);
});

test("package-lock.json names no registry: what is resolved is a workspace", () => {
  expect(linesWhere(readText("package-lock.json"), (line) => /"resolved": "[a-z+]*:/.test(line))).toEqual([]);
});

test("package-lock.json has an entry for every optional package, as npm 11 wants", () => {
  const { packages } = JSON.parse(read("package-lock.json")) as {
    packages: Record<string, { optionalDependencies?: Record<string, string> }>;
  };
  const named = Object.values(packages).flatMap((entry) => Object.keys(entry.optionalDependencies ?? {}));
  expect(named.length).toBeGreaterThan(0);
  expect(named.filter((name) => !Object.hasOwn(packages, `node_modules/${name}`))).toEqual([]);
});

interface Requirement {
  readonly name: string;
  readonly specifier: string;
  readonly marker?: string;
}

/** As much of `uv.lock` as is judged. */
interface PythonLock {
  readonly package: readonly {
    readonly name: string;
    readonly source: { readonly registry?: string; readonly editable?: string };
    readonly sdist?: { readonly url: string; readonly hash: string };
    readonly wheels?: readonly { readonly url: string; readonly hash: string }[];
    readonly metadata?: { readonly "requires-dev": Readonly<Record<string, readonly Requirement[]>> };
  }[];
}

const pythonLock = Bun.TOML.parse(read("clients/python/uv.lock")) as unknown as PythonLock;

test("the Python lock file has a hash for every archive, and names the public index and no other", () => {
  const others = pythonLock.package.filter(({ name }) => name !== "tensord");
  expect(others.length).toBeGreaterThan(50);
  expect(others.filter(({ source }) => source.registry !== "https://pypi.org/simple")).toEqual([]);
  const archives = others.flatMap(({ sdist, wheels = [] }) => [...(sdist ? [sdist] : []), ...wheels]);
  const isPublic = (url: string) => url.startsWith("https://files.pythonhosted.org/packages/");
  expect(archives.filter(({ url, hash }) => !isPublic(url) || !/^sha256:[0-9a-f]{64}$/.test(hash))).toEqual([]);
});

test("the Python lock file is that of pyproject.toml, whose groups pin every version", () => {
  const { "dependency-groups": groups } = Bun.TOML.parse(read("clients/python/pyproject.toml")) as {
    "dependency-groups": Readonly<Record<string, readonly string[]>>;
  };
  const locked = pythonLock.package.find(({ name }) => name === "tensord")?.metadata?.["requires-dev"] ?? {};
  const shown = Object.entries(locked).map(([group, requirements]) => [
    group,
    requirements.map(({ name, specifier, marker }) => name + specifier + (marker ? `; ${marker}` : "")).toSorted(),
  ]);
  expect(Object.fromEntries(shown)).toEqual(
    Object.fromEntries(Object.entries(groups).map(([group, pins]) => [group, pins.toSorted()])),
  );
  expect(
    Object.values(groups)
      .flat()
      .filter((pin) => !/^[a-z0-9-]+==[\w.]+(; sys_platform == 'linux')?$/.test(pin)),
  ).toEqual([]);
});

test("uv is pinned by version and hash, and from no index of its own", () => {
  const lines = read("scripts/lib/uv.txt")
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("#"));
  expect(lines[0]).toMatch(/^uv==\d+\.\d+\.\d+ \\$/);
  expect(lines.length).toBeGreaterThan(1);
  expect(lines.slice(1).filter((line) => !/^ {4}--hash=sha256:[0-9a-f]{64}( \\)?$/.test(line))).toEqual([]);
});

/** Folders that are published as packages. */
const packages = [".", "clients/node", "clients/python"];

test("every package carries the whole licence", () => {
  const text = read("LICENSE");
  // The text that the Apache Software Foundation publishes.
  const published = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30";
  expect(new Bun.CryptoHasher("sha256").update(text).digest("hex")).toBe(published);
  for (const folder of packages) expect(read(join(folder, "LICENSE"))).toBe(text);
  const manifests = files
    .map(({ path }) => path)
    .filter((path) => /(^|\/)(package\.json|pyproject\.toml)$/.test(path) && !path.startsWith("tests/"));
  expect(manifests.map(dirname).toSorted()).toEqual(packages);
  for (const path of manifests) expect(read(path)).toMatch(/^ *"?license"? ?[:=] "Apache-2\.0",?$/m);
});

test("no line ends in white space, or holds a tab where it is not Go, which is written with tabs", () => {
  expect(linesWhere(files, (line) => /[ \t\r]$/.test(line))).toEqual([]);
  const others = files.filter(({ path }) => !/\.go$|\/go\.mod$/.test(path));
  expect(linesWhere(others, (line) => line.includes("\t"))).toEqual([]);
});

test("every text file ends in one newline", () => {
  const ragged = files.filter(({ text }) => text !== "" && !/[^\n]\n$/.test(text));
  expect(ragged.map(({ path }) => path)).toEqual([]);
});

test(".ci/run is executable and calls npm test", () => {
  expect(read(".ci/run")).toMatch(/^npm test$/m);
  expect(statSync(join(root, ".ci/run")).mode & 0o111).toBe(0o111);
});
