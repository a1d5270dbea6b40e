import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { TensordError } from "../../src/memory/error.ts";
import { checkJsonBounds } from "../../src/memory/layout/json-bounds.ts";
import { limits } from "../../src/memory/limits.ts";

const most = limits.requestBodyDepth;

function isRefused(text: string): boolean {
  try {
    checkJsonBounds(text);
    return false;
  } catch (error) {
    if (error instanceof TensordError && error.code === "validation-failed") return true;
    throw error;
  }
}

/** How deep a value nests, found in the parsed value and not in its text. */
function depthOf(value: unknown): number {
  if (typeof value !== "object" || value === null) return 0;
  return 1 + Math.max(0, ...Object.values(value).map(depthOf));
}

describe("checkJsonBounds", () => {
  test("lets the deepest allowed nesting pass, and not one level more", () => {
    for (const [open, close] of [
      ["[", "]"],
      ['{"a":', "}"],
      ['[{"a":', "}]"],
    ] as const) {
      const levels = open.length === 6 ? 2 : 1;
      const nest = (depth: number) => `${open.repeat(depth)}1${close.repeat(depth)}`;
      const passes = Math.floor(most / levels);
      expect(isRefused(nest(passes))).toBeFalse();
      expect(isRefused(nest(passes + 1))).toBeTrue();
    }
  });

  test("lets an object have as many members as are allowed, and not one more, wherever it stands", () => {
    const members = (count: number) => Array.from({ length: count }, (_, index) => `"k${index}":[0,0]`).join();
    const object = (count: number) => `{${members(count)}}`;
    for (const wrap of [
      (text: string) => text,
      (text: string) => `[0,${text}]`,
      (text: string) => `{"a":[],"b":${text}}`,
    ]) {
      expect(isRefused(wrap(object(limits.requestBodyMembers)))).toBeFalse();
      expect(isRefused(wrap(object(limits.requestBodyMembers + 1)))).toBeTrue();
    }
    // Of a list nothing is counted but its values, nor of objects beside one another.
    expect(isRefused(`[${"0,".repeat(limits.requestBodyMembers + 1)}0]`)).toBeFalse();
    expect(isRefused(`[${`${object(2)},`.repeat(limits.requestBodyMembers)}0]`)).toBeFalse();
  });

  test("counts levels and not brackets", () => {
    expect(isRefused(`[${"[],{},".repeat(10_000)}[]]`)).toBeFalse();
  });

  test("does not count brackets in strings, whatever they are escaped with", () => {
    const brackets = "[{".repeat(100);
    for (const text of [
      JSON.stringify(brackets),
      JSON.stringify({ [brackets]: `"${brackets}\\"${brackets}\\` }),
      JSON.stringify(`\\\\"${brackets}`),
      `"\\\\\\"${brackets}"`,
      `["\\\\", "${brackets}"]`,
    ]) {
      expect(isRefused(text)).toBeFalse();
      expect(depthOf(JSON.parse(text))).toBeLessThanOrEqual(1);
    }
  });

  test("counts brackets after a string that ends in escaped backslashes", () => {
    const deep = "[".repeat(most + 1);
    for (const text of [`"\\\\"${deep}`, `"\\\\\\\\"${deep}`, `""${deep}`, `"\\""${deep}`]) {
      expect(isRefused(text)).toBeTrue();
    }
  });

  test("agrees with the parsed value on any JSON", () => {
    const tree = fc.letrec<{ node: unknown }>((tie) => ({
      node: fc.oneof(
        { maxDepth: 25, withCrossShrink: true },
        fc.string({ unit: fc.constantFrom("[", "{", '"', "\\", "a", "]", "}", "\n", "😀") }),
        fc.array(tie("node"), { maxLength: 2 }),
        fc.dictionary(fc.string({ unit: fc.constantFrom("[", '"', "\\", "}") }), tie("node"), { maxKeys: 2 }),
      ),
    })).node;
    const wrapped = fc.tuple(tree, fc.nat(20)).map(([value, levels]) => {
      let nested: unknown = value;
      for (let level = 0; level < levels; level++) nested = level % 2 === 0 ? [nested] : { "]": nested };
      return nested;
    });
    fc.assert(
      fc.property(wrapped, fc.constantFrom(undefined, 2), (value, indent) => {
        expect(isRefused(JSON.stringify(value, null, indent))).toBe(depthOf(value) > most);
      }),
      { numRuns: 500 },
    );
  });

  test("never throws anything else on any text, and leaves broken JSON to the parser", () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom("[", "]", "{", "}", '"', "\\", ",", ":", "1") }), (text) => {
        expect(isRefused(text)).toBeBoolean();
      }),
    );
    for (const text of ["", "]", "}}}}", '"', '"\\', '"\\"', "]".repeat(1000), '{"a":"'.repeat(3)]) {
      expect(isRefused(text)).toBeFalse();
    }
  });

  test("refuses megabytes of brackets before a parser has to read them", () => {
    for (const bracket of ["[", "{", '{"a":', "[[]", '["]",']) {
      expect(isRefused(bracket.repeat(1_000_000))).toBeTrue();
    }
  });

  test("says how deep is allowed, and where the schema is", () => {
    try {
      checkJsonBounds("[".repeat(100));
      expect.unreachable();
    } catch (error) {
      expect((error as TensordError).message).toContain(`deeper than ${most} levels`);
      expect((error as TensordError).facts.hint).toContain("/openapi.json");
    }
  });
});
