import { describe, expect, test } from "bun:test";
import { z } from "@hono/zod-openapi";
import fc from "fast-check";
import { limits } from "../../src/memory/limits.ts";
import { byteCount, Shape } from "../../src/routes/schemas/common.ts";
import * as elastic from "../../src/routes/schemas/elastic-pool.ts";
import * as groups from "../../src/routes/schemas/group.ts";
import { Labels, LabelsPatch } from "../../src/routes/schemas/labels.ts";
import * as loads from "../../src/routes/schemas/load.ts";
import * as operations from "../../src/routes/schemas/operation.ts";
import * as pages from "../../src/routes/schemas/pages.ts";
import { checkedBy, toPlainCheck } from "../../src/routes/schemas/plain-check.ts";
import * as requests from "../../src/routes/schemas/requests.ts";

/** Values at which one rule or another ends. */
const edges: readonly unknown[] = [
  ...[
    0,
    1,
    -1,
    0.5,
    1000,
    999,
    60_000,
    2 ** 31 - 1,
    2 ** 31,
    2 ** 53 - 1,
    2 ** 53,
    1e300,
    limits.ttlMs,
    limits.ttlMs + 1,
  ],
  ...[
    "",
    "a",
    ".a",
    "a b",
    "a\n",
    "F32",
    "U8",
    "shm",
    "fail",
    "evict",
    "attach",
    "replace",
    "host",
    "pid:[1]",
    "\ud800",
  ],
  ...["a".repeat(64), "a".repeat(65), "a".repeat(128), "a".repeat(129), "a".repeat(512), "a".repeat(513)],
  ...[
    true,
    false,
    null,
    [],
    {},
    [1],
    [128, 128],
    [-1],
    [0.5],
    ["1"],
    [null],
    new Array(65).fill(1),
    new Array(64).fill(0),
  ],
  ...[{ a: "b" }, { a: 1 }, { a: null }, { "": "b" }, { a: "b".repeat(257) }, JSON.parse('{"__proto__": "b"}')],
  ...[
    [{ name: "a", dtype: "F32", shape: [1] }],
    [{ name: "a", dtype: "F32" }],
    [{ name: "a", dtype: "F3", shape: [] }],
  ],
];

const schemas = Object.entries<unknown>({
  ...requests,
  ...elastic,
  ...groups,
  ...loads,
  ...operations,
  ...pages,
  Shape,
  Labels,
  LabelsPatch,
}).filter((entry): entry is [string, z.ZodType] => entry[1] instanceof z.ZodType);

/** A schema's own fields with values of all kinds, as they come out of a text of JSON, and now and then a field too many. */
function near(schema: z.ZodType): fc.Arbitrary<unknown> {
  const edge = fc.constantFrom(...edges);
  if (!(schema instanceof z.ZodObject)) return edge;
  const fields = Object.entries(schema.shape as Record<string, z.ZodType>);
  const values = Object.fromEntries(fields.map(([key, field]) => [key, toValue(field)]));
  const member = fc.record(values, {
    requiredKeys: fields.filter(([, field]) => !field.isOptional()).map(([key]) => key),
  });
  return fc.oneof({ weight: 20, arbitrary: member }, fc.record({ ...values, other: edge }, { requiredKeys: [] }), edge);
}

/** What the field takes, where it is found among the edges, more often than what it refuses. */
function toValue(field: z.ZodType): fc.Arbitrary<unknown> {
  const taken = edges.filter((edge) => field.safeParse(edge).success);
  const edge = fc.constantFrom(...edges);
  return taken.length === 0 ? edge : fc.oneof({ weight: 30, arbitrary: fc.constantFrom(...taken) }, edge);
}

describe("a plain check", () => {
  test.each(schemas)("takes of %s only what the schema takes and leaves as it is", (_, schema) => {
    const isPlain = toPlainCheck(schema);
    fc.assert(
      fc.property(near(schema), (made) => {
        const value = JSON.parse(JSON.stringify(made)) as unknown;
        if (!isPlain(value)) return;
        const result = schema.safeParse(value);
        expect(result.success).toBe(true);
        expect(result.data).toStrictEqual(value);
      }),
      { numRuns: 500 },
    );
  });

  test("takes the bodies that clients send most", () => {
    const tensors = [
      { name: "data", dtype: "F32", shape: [128, 128] },
      { name: "s", dtype: "BF16", shape: [] },
    ];
    const isCreation = toPlainCheck(requests.CreateRegion);
    expect(isCreation({ tensors, ttl_ms: 600_000 })).toBe(true);
    expect(isCreation({ byte_size: 0, session: "ses_abcdefghijklmnopqrstuvwxyz", private: false })).toBe(true);
    const named = { model: "default", name: "w", version: "1", labels: { job: "nightly" }, linger_ms: 0 };
    expect(isCreation({ ...named, tensors, if_exists: "attach", on_full: "wait", deadline_ms: 1000 })).toBe(true);
    expect(toPlainCheck(requests.SealRegion)({ checksum: true })).toBe(true);
    expect(toPlainCheck(requests.TakeLease)({ ttl_ms: 60_000 })).toBe(true);
  });

  test("takes no field that the schema has not, and misses none that it needs", () => {
    const isTensor = toPlainCheck(requests.TensorRequest);
    const tensor = { name: "data", dtype: "F32", shape: [1] };
    expect(isTensor(tensor)).toBe(true);
    expect(isTensor({ ...tensor, other: 1 })).toBe(false);
    expect(isTensor({ name: "data", dtype: "F32" })).toBe(false);
    expect(isTensor(JSON.parse('{"name":"data","dtype":"F32","shape":[1],"__proto__":{}}'))).toBe(false);
    expect(isTensor(JSON.parse('{"name":"data","dtype":"F32","toString":[1],"shape":[1]}'))).toBe(false);
  });

  test("leaves to zod what it cannot read, and what makes something else of a value", () => {
    const text = z.string();
    for (const schema of [
      text.refine((value) => value !== "a"),
      text.trim(),
      text.regex(/a/g),
      text.email(),
      z.coerce.string(),
      z.coerce.number(),
      z.coerce.boolean(),
      z.object({}),
      z.object({}).loose(),
      text.transform((value) => value),
      text.default("a"),
      z.union([text, byteCount]),
      z.array(text.refine(() => true)),
    ]) {
      const isPlain = toPlainCheck(schema);
      for (const value of ["a", 1, true, {}, ["a"]]) expect(isPlain(value)).toBe(false);
    }
  });

  test("what is checked by hand is asked of that schema and not of one made from it", () => {
    const schema = checkedBy(
      z.custom<string>(() => true),
      (value) => value === "a",
    );
    expect(toPlainCheck(schema)("a")).toBe(true);
    expect(toPlainCheck(schema.openapi({ example: "a" }).optional())("a")).toBe(true);
    expect(toPlainCheck(schema.refine((value) => value !== "a"))("a")).toBe(false);
  });
});
