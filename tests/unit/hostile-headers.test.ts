/** Every file under tests/hostile/headers is refused, for the reason that its README gives. */

import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { TensordError } from "../../src/memory/error.ts";
import { parseHeader } from "../../src/memory/layout/layout.ts";

const folder = join(import.meta.dirname, "../hostile");
const files = readdirSync(join(folder, "headers")).toSorted();
const rows = [...readFileSync(join(folder, "README.md"), "utf8").matchAll(/^\| `(.+?\.bin)` \| .+ \| `(.+)` \|$/gm)];

describe("hostile headers", () => {
  test("the README names every file, and no other", () => {
    expect(rows.map(([, file]) => file).toSorted()).toEqual(files);
    expect(files.length).toBeGreaterThan(60);
  });

  for (const [, file = "", words = ""] of rows) {
    test(`parseHeader refuses ${file}: ${words}`, () => {
      const bytes = readFileSync(join(folder, "headers", file));
      const failure = failureOf(() => parseHeader(bytes, bytes.length));
      expect(failure.code).toBe("validation-failed");
      expect(failure.message).toContain(words);
      expect(failure.message).toMatch(/^Cannot .+: .+, want .+$/);
      expect(failure.message.length).toBeLessThan(1500);
      expect(failure.facts.hint).toBeString();
    });
  }
});

function failureOf(act: () => unknown): TensordError {
  try {
    act();
  } catch (error) {
    if (error instanceof TensordError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}
