import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { checkJsonBounds } from "../../src/memory/layout/json-bounds.ts";

function refusal(text: string): string | undefined {
  try {
    checkJsonBounds(text);
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

describe("keys of a JSON text", () => {
  for (const text of [
    '{"a":1,"a":1}',
    '{"a":1,"b":2,"c":{"d":1},"a":3}',
    '[{"x":[{"a":1,"a":2}]}]',
    '{"a" : 1 ,\n\t"a"\r\n : 2}',
    '{"a":1,"\\u0061":2}',
    '{"\\u0061":1,"a":2}',
    '{"\\u0061":1,"\\x":0,"\\u0061":2}',
    '{"":1,"":2}',
    '{"a\\"":1,"a\\"":2}',
    '{"__proto__":1,"__proto__":2}',
  ]) {
    test(`that an object has twice are refused: ${JSON.stringify(text)}`, () => {
      expect(refusal(text)).toContain("twice in one object");
    });
  }

  test("are quoted as they read, and as a terminal may have them", () => {
    expect(refusal('{"ttl_ms":1,"ttl\\u005fms":2}')).toContain('the key "ttl_ms" twice');
    expect(refusal('{"\u009b2J":1,"\u009b2J":2}')).toContain('the key "\\u009b2J" twice');
  });

  test("of several objects, values that read alike, and keys that begin alike are none of that", () => {
    for (const text of [
      '[{"a":1},{"a":1}]',
      '{"a":{"a":{"a":"a"}}}',
      '{"a":"a","b":"a","ab":"a","ac":["a","a"]}',
      '{"a":["a",{"b":1},"a"],"b":{"a":1}}',
      '{"a\\\\":1,"a":2}',
    ]) {
      expect(refusal(text)).toBeUndefined();
    }
  });

  test("agree with the parsed value on any JSON", () => {
    const key = fc.string({ unit: fc.constantFrom("a", "b", '"', "\\", "\n", "é"), maxLength: 3 });
    const pairs = fc.array(fc.tuple(key, fc.boolean()), { maxLength: 8 });
    fc.assert(
      fc.property(pairs, (members) => {
        const toEscapes = (text: string) =>
          `"${[...text].map((each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, "0")}`).join("")}"`;
        const written = members.map(
          ([name, isEscaped]) => `${isEscaped ? toEscapes(name) : JSON.stringify(name)}: [0]`,
        );
        const text = `{${written.join(", ")}}`;
        const isTwice = Object.keys(JSON.parse(text)).length < members.length;
        expect(refusal(text) !== undefined).toBe(isTwice);
      }),
      { numRuns: 500 },
    );
  });

  test("of an object with more of them than any schema has are not searched through: it is refused for their number", () => {
    const many = Array.from({ length: 200_000 }, (_, i) => `"k${String(i).padStart(6, "0")}":0`);
    expect(refusal(`{${many.join(",")}}`)).toContain("1000 members");
    expect(refusal(`{"a":0,${many.slice(0, 40).join(",")},"a":0}`)).toContain("twice");
  });
});
