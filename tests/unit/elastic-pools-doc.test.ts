/** docs/elastic-pools.md names a test for each operation and each error of elastic pools, and each of these is there. */

import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { failures } from "../../src/memory/error.ts";

const root = join(import.meta.dir, "../..");
const page = readFileSync(join(root, "docs/elastic-pools.md"), "utf8");
/** The cells of each row, without heads. */
const all = [...page.matchAll(/^\| (.+) \|$/gm)]
  .map(([, row = ""]) => row.split(" | "))
  .filter(([first]) => !["operation", "error", "what"].includes(first ?? ""));
/** Tests in Python stand by their functions, several in a row. */
const isPython = (cells: readonly string[]) => cells.at(-1)?.startsWith("`test_") === true;
const rows = all.filter((cells) => !isPython(cells));

test("each row has a test, which is in the file that it names", () => {
  expect(rows.length).toBeGreaterThan(25);
  for (const cells of rows) {
    const [, path = "", name = ""] = /^`([^`]+)`: (.+)$/.exec(cells.at(-1) ?? "") ?? [];
    expect([cells[0], path]).toEqual([cells[0], expect.stringMatching(/^(tests|clients)\//)]);
    expect(readFileSync(join(root, path), "utf8")).toContain(name);
  }
});

test("each row about the Python client has tests, which are in the files that it names", () => {
  const inPython = all.filter(isPython);
  expect(inPython.length).toBeGreaterThan(5);
  for (const cell of inPython.map((cells) => cells.at(-1) ?? ""))
    for (const [, file = "", names = ""] of cell.matchAll(/`(test_\w+\.py)`: ([\w, ]+)/g)) {
      const text = readFileSync(join(root, "clients/python/tests", file), "utf8");
      for (const name of names.split(", ")) expect(text).toContain(`def ${name}(`);
    }
});

test("each error is a failure of the one table, under its status", () => {
  const told = rows.flatMap(([, code = ""]) => (/^\d{3} `/.test(code) ? [code] : []));
  expect(told.length).toBeGreaterThan(10);
  for (const cell of told) {
    const [status] = cell.split(" ");
    for (const [, code = ""] of cell.matchAll(/`([a-z-]+)`/g)) {
      const { status: declared }: { status: number } = failures[code as keyof typeof failures];
      expect([code, declared]).toEqual([code, Number(status)]);
    }
  }
});

test("each failure that is of elastic pools alone stands there", () => {
  const own = ["vmm-pool-not-found", "vmm-pool-exists", "invalid-page-size", "out-of-range"] as const;
  for (const code of [...own, "already-mapped", "not-mapped", "in-use"]) expect(page).toContain(`\`${code}\``);
});
