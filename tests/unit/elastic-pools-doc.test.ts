/** docs/elastic-pools.md names a test for each operation and each error of elastic pools, and each of these is there. */

import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { failures } from "../../src/memory/error.ts";

const root = join(import.meta.dir, "../..");
const page = readFileSync(join(root, "docs/elastic-pools.md"), "utf8");
/** The cells of each row, without heads. */
const rows = [...page.matchAll(/^\| (.+) \|$/gm)]
  .map(([, row = ""]) => row.split(" | "))
  .filter(([first]) => first !== "operation" && first !== "error");

test("each row has a test, which is in the file that it names", () => {
  expect(rows.length).toBeGreaterThan(25);
  for (const cells of rows) {
    const [, path = "", name = ""] = /^`([^`]+)`: (.+)$/.exec(cells.at(-1) ?? "") ?? [];
    expect([cells[0], path]).toEqual([cells[0], expect.stringMatching(/^(tests|clients)\//)]);
    expect(readFileSync(join(root, path), "utf8")).toContain(name);
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
