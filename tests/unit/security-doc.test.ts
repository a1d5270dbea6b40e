/** docs/security.md says of each threat which test shows what becomes of it. Here these names are held against the tests. */

import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dir, "../..");
const text = readFileSync(join(root, "docs/security.md"), "utf8");
const section = /\n## What is tried\n(.*?)\n## /s.exec(text)?.[1] ?? "";
const rows = section
  .split("\n")
  .filter((line) => line.startsWith("| "))
  .slice(1)
  .map((line) => line.slice(2, -2).split(" | "));

describe("docs/security.md", () => {
  test("has its threats in a table, each with who, what, what stops it, and what shows that", () => {
    expect(rows.length).toBeGreaterThan(20);
    for (const row of rows) expect({ row, length: row.length }).toEqual({ row, length: 4 });
  });

  for (const [who, what, , shown = ""] of rows) {
    test(`names tests that there are: ${who} ${what}`, () => {
      const named = [...shown.matchAll(/`([^`]+)`: \*([^*]+)\*/g)];
      expect(named.length).toBeGreaterThan(0);
      for (const [, path = "", name = ""] of named) {
        expect(existsSync(join(root, path)), path).toBeTrue();
        expect(readFileSync(join(root, path), "utf8")).toContain(name);
      }
    });
  }
});
