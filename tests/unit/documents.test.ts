/** The repository's documents: what they link and name is there, and their index leads to all of them. */

import { expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { paths, read, readText, root } from "../harness/repository.ts";

const documents = paths.filter((path) => path.endsWith(".md")).flatMap(readText);
const ignored = new Set(read(".gitignore").split("\n"));
const known = new Set(paths.flatMap((path) => [path, ...foldersOf(path)]));
const roots = new Set([...known].filter((path) => !path.includes("/")));

function foldersOf(path: string): string[] {
  const folder = dirname(path);
  return folder === "." ? [] : [folder, ...foldersOf(folder)];
}

const fence = /^```.*?^```$/gms;

/** The anchors of a document's headings, as forges make them. */
function anchorsOf(text: string): Set<string> {
  const headings = [...text.replaceAll(fence, "").matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) => heading);
  return new Set(
    headings.map((heading) =>
      heading
        .toLowerCase()
        .replaceAll(/[^\w\- ]/g, "")
        .replaceAll(" ", "-"),
    ),
  );
}

/** Does a link lead somewhere? What lies on other hosts is not asked. */
function isLink(from: string, target: string): boolean {
  if (/^(https?|mailto):/.test(target)) return true;
  const [path = "", anchor] = target.split("#");
  const file = path === "" ? from : normalize(join(dirname(from), path));
  if (!existsSync(join(root, file))) return false;
  return anchor === undefined || anchorsOf(read(file)).has(anchor);
}

/** Words of code that begin like a path of the repository. */
function namedPaths(text: string): string[] {
  const code = [...text.matchAll(/```.*?```|`[^`]+`/gs)].map(([block]) => block);
  return code
    .flatMap((block) => block.split(/[\s`"'()<>,;=]+/))
    .map((word) => word.replace(/^\.\//, "").replace(/\/$/, ""))
    .filter((word) => /^[\w.*/-]+\/[\w.*-]+$/.test(word) && roots.has(word.split("/")[0] ?? ""));
}

/** Is it there, from the root or from the document's folder, or made and never committed? */
function isPath(from: string, path: string): boolean {
  if ([path, join(dirname(from), path)].some((place) => known.has(place)) || ignored.has(`${path}/`)) return true;
  return path.includes("*") && [...known].some((other) => new Bun.Glob(path).match(other));
}

test("the links in documents lead somewhere", () => {
  expect(documents.length).toBeGreaterThan(10);
  const links = documents.flatMap(({ path, text }) =>
    [...text.replaceAll(fence, "").matchAll(/\]\(([^)\s]+)\)/g)].map(([, target = ""]) => ({ path, target })),
  );
  expect(links.length).toBeGreaterThan(20);
  expect(links.filter(({ path, target }) => !isLink(path, target))).toEqual([]);
});

test("the paths that documents name are there", () => {
  const all = documents.flatMap(({ path, text }) => namedPaths(text).map((named) => ({ path, named })));
  expect(all.length).toBeGreaterThan(20);
  expect(all.filter(({ path, named }) => !isPath(path, named))).toEqual([]);
});

test("docs/README.md leads to every document", () => {
  const index = read("docs/README.md");
  const targets = [...index.matchAll(/\]\(([^)#]+)/g)].map(([, target = ""]) => normalize(join("docs", target)));
  // AGENTS.md leads there itself.
  const others = documents.map(({ path }) => path).filter((path) => !["docs/README.md", "AGENTS.md"].includes(path));
  expect(others.filter((path) => !targets.includes(path))).toEqual([]);
});
