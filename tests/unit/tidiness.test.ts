/** The repository's tidiness, as far as reading its files can tell: docs, sizes, pins, white space. */

import { expect, test } from "bun:test";
import { existsSync, readFileSync, statSync } from "node:fs";
import { join, relative } from "node:path";

const root = join(import.meta.dir, "../..");
const self = relative(root, import.meta.path);

const maximumLines = 350;

/** Tracked files and new ones that nothing ignores. A file that git still lists but is gone is none of ours. */
function listFiles(): string[] {
  // The clone may belong to another user than the one who runs the tests, as in containers.
  const command = ["git", "-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard", "-z"];
  const { success, stdout, stderr } = Bun.spawnSync(command, { cwd: root });
  if (!success) throw new Error(`Cannot list the repository's files: git says: ${stderr.toString().trim()}`);
  const paths = stdout.toString().split("\0").filter(Boolean);
  return paths.filter((path) => existsSync(join(root, path)) && statSync(join(root, path)).isFile());
}

interface TextFile {
  readonly path: string;
  readonly text: string;
  readonly lines: readonly string[];
}

/** Reads what is text: a file with a NUL is not. */
function readText(path: string): TextFile[] {
  const bytes = readFileSync(join(root, path));
  if (bytes.includes(0)) return [];
  const text = bytes.toString("utf8");
  return [{ path, text, lines: text.split("\n") }];
}

// Hostile files are what they are on purpose.
const isHostile = (path: string): boolean => path.startsWith("tests/hostile/") && !/\.(md|ts)$/.test(path);
const files = listFiles()
  .filter((path) => !isHostile(path))
  .flatMap(readText);
const sources = files.filter(({ path }) => path.startsWith("src/") && path.endsWith(".ts"));

/** `path:line` of each line that `isBad` picks. */
const linesWhere = (among: readonly TextFile[], isBad: (line: string) => boolean): string[] =>
  among.flatMap(({ path, lines }) => lines.flatMap((line, index) => (isBad(line) ? `${path}:${index + 1}` : [])));

const read = (path: string): string => readFileSync(join(root, path), "utf8");

test("the files that are judged are the repository's", () => {
  const paths = files.map(({ path }) => path);
  expect(paths).toContain("package.json");
  expect(paths).toContain(self);
  expect(sources.length).toBeGreaterThan(10);
});

test("each source file opens with a doc comment", () => {
  const bare = sources.filter(({ text }) => !/^(#!.*\n)?\/\*\*\s/.test(text));
  expect(bare.map(({ path }) => path)).toEqual([]);
});

test(`no source file is longer than ${maximumLines} lines`, () => {
  const long = sources.filter(({ lines }) => lines.length - 1 > maximumLines);
  expect(long.map(({ path, lines }) => `${path}: ${lines.length - 1}`)).toEqual([]);
});

test("every TODO and FIXME names its issue", () => {
  const others = files.filter(({ path }) => path !== self && !path.endsWith("lock.json"));
  expect(linesWhere(others, (line) => /\b(TODO|FIXME|XXX)\b/.test(line) && !/#\d+/.test(line))).toEqual([]);
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

test("the Python lock file pins every package and names no index", () => {
  const [lock] = readText("clients/python/requirements.lock");
  const pinned = /^[a-z0-9-]+==[\w.]+( ; platform_system == "Linux")?$/;
  expect(linesWhere(lock ? [lock] : [], (line) => line !== "" && !line.startsWith("#") && !pinned.test(line))).toEqual(
    [],
  );
  expect(lock?.text).not.toContain("://");
});

test("no line ends in white space or holds a tab", () => {
  expect(linesWhere(files, (line) => /[ \t\r]$|\t/.test(line))).toEqual([]);
});

test("every text file ends in one newline", () => {
  const ragged = files.filter(({ text }) => text !== "" && !/[^\n]\n$/.test(text));
  expect(ragged.map(({ path }) => path)).toEqual([]);
});

test(".ci/run is executable and calls npm test", () => {
  expect(read(".ci/run")).toMatch(/^npm test$/m);
  expect(statSync(join(root, ".ci/run")).mode & 0o111).toBe(0o111);
});
