/**
 * What generators of clients make of the document, where they take less than OpenAPI says: each rule is of one that failed
 * to compile, or read less than was sent.
 */

import { describe, expect, test } from "bun:test";
import { document, operations } from "../harness/answers.ts";
import { takenEndings, takenNames } from "./support/taken-names.ts";

type Schema = Readonly<Record<string, unknown>>;

/** Every object inside, as it stands in the document, with its path. */
function* walk(value: unknown, path = "#"): Generator<readonly [path: string, schema: Schema]> {
  if (typeof value !== "object" || value === null) return;
  if (!Array.isArray(value)) yield [path, value as Schema];
  for (const [key, item] of Object.entries(value)) yield* walk(item, `${path}/${key}`);
}

// Rules over several fields stand below an `if`, which generators do not read.
const objects = [...walk(document)].filter(([path]) => !/\/if(\/|$)/.test(path));
const isOf = (type: string, schema: Schema) => "type" in schema && [schema.type].flat().includes(type);

describe("an integer", () => {
  const integers = objects.filter(([, schema]) => isOf("integer", schema));
  const formatOf = (schema: string, property: string) => {
    const { properties } = document.components.schemas[schema] as { properties: Record<string, Schema> };
    return properties[property]?.format;
  };

  test("says how wide it is, wherever it stands", () => {
    expect(integers.length).toBeGreaterThan(90);
    expect(integers.filter(([, { format }]) => format !== "int64" && format !== "int32")).toEqual([]);
  });

  test("has 32 bits only where its bounds say that it is small", () => {
    const small = integers.filter(([, { format }]) => format === "int32").map(([, schema]) => schema);
    expect(small.length).toBeGreaterThan(5);
    for (const { minimum, maximum } of small) {
      expect(minimum).toBeWithin(-(2 ** 31), 2 ** 31);
      expect(maximum).toBeWithin(-(2 ** 31), 2 ** 31);
    }
  });

  test("that counts bytes, changes or starts has 64", () => {
    const wide = [
      ["Stats", "epoch"],
      ["Storage", "byte_size"],
      ["Tensor", "byte_offset"],
      ["Problem", "available_bytes"],
      ["RegionFacts", "revision"],
      ["CreateRegion", "ttl_ms"],
    ] as const;
    expect(wide.map(([schema, property]) => formatOf(schema, property))).toEqual(wide.map(() => "int64"));
    expect(formatOf("Problem", "status")).toBe("int32");
  });
});

describe("a constant", () => {
  test("or an enum is of words: one of booleans or numbers does not compile", () => {
    const constants = objects.filter(([, schema]) => "const" in schema || Array.isArray(schema.enum));
    expect(constants.length).toBeGreaterThan(10);
    expect(constants.filter(([, { type }]) => type !== "string").map(([path]) => path)).toEqual([]);
  });
});

describe("a schema", () => {
  test("is written out: of allOf and oneOf some generators lose what may be null", () => {
    expect(objects.filter(([, schema]) => "allOf" in schema || "oneOf" in schema).map(([path]) => path)).toEqual([]);
  });

  test("that may be null is one of two types, or one reference and null", () => {
    const choices = objects.filter(([, schema]) => "anyOf" in schema);
    expect(choices.length).toBeGreaterThan(0);
    for (const [path, { anyOf }] of choices) {
      expect([path, anyOf]).toEqual([path, [{ $ref: expect.any(String) }, { type: "null" }]]);
    }
    const lists = objects.filter(([, { type }]) => Array.isArray(type));
    expect(lists.length).toBeGreaterThan(20);
    for (const [path, { type }] of lists) expect([path, type]).toEqual([path, [expect.any(String), "null"]]);
  });
});

describe("a schema's name", () => {
  const names = Object.keys(document.components.schemas);

  test("is none that a generator takes for itself", () => {
    expect(names.filter((name) => takenNames.has(name.toLowerCase()))).toEqual([]);
  });

  test("is none that a generator makes of an operation's name", () => {
    const made = new Set(
      operations.flatMap(({ operationId }) => takenEndings.map((ending) => (operationId + ending).toLowerCase())),
    );
    expect(names.filter((name) => made.has(name.toLowerCase()))).toEqual([]);
  });

  test("differs from every other in more than its case, which file names of some systems do not keep", () => {
    expect(new Set(names.map((name) => name.toLowerCase())).size).toBe(names.length);
  });
});
