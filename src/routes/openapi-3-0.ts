/**
 * The document as OpenAPI 3.0.3, for generators that read no 3.1: made from the 3.1 document, member by member. It knows the
 * forms that the document has, and refuses any other rather than to guess.
 */

import assert from "node:assert/strict";

type Json = Readonly<Record<string, unknown>>;

/** `openapi-3.0.yaml` is the committed copy of this. */
export function toOpenApi30<Document extends object>(document: Document) {
  return { ...(toForm30(document) as Document), openapi: "3.0.3" };
}

function toForm30(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(toForm30);
  if (typeof value !== "object" || value === null) return value;
  const converted = toConverted(value as Json);
  return Object.fromEntries(
    Object.entries(converted).map(([key, item]) => [key, isLiteral(key) ? item : toForm30(item)]),
  );
}

/** Below these is a value, and no schema. */
const isLiteral = (key: string) => key === "example" || key === "default" || key === "enum" || key === "required";

function toConverted(value: Json): Json {
  if ("if" in value) return toConverted(withoutRule(value));
  if (Array.isArray(value.type)) return toNullable(value, value.type);
  if (Array.isArray(value.anyOf)) return toNullableReference(value, value.anyOf);
  if (Array.isArray(value.examples)) return toExample(value, value.examples);
  if (typeof value.responses === "object" && value.responses !== null) return toRanges(value, value.responses as Json);
  return value;
}

/** 3.0 has no rules over several fields but such as generators take for types; the description says them. */
function withoutRule({ if: _, else: __, ...schema }: Json): Json {
  return schema;
}

function toNullable(schema: Json, types: readonly unknown[]): Json {
  const [type, ...others] = types;
  assert.deepEqual(others, ["null"], "3.0 knows one type and null");
  return toConverted({ ...schema, type, nullable: true });
}

function toNullableReference({ anyOf: _, ...schema }: Json, choices: readonly unknown[]): Json {
  const [reference, ...others] = choices;
  assert.deepEqual(others, [{ type: "null" }], "3.0 says of one reference that it may be null");
  // Beside `$ref` nothing counts.
  return { ...schema, nullable: true, allOf: [reference] };
}

function toExample({ examples: _, ...schema }: Json, [example]: readonly unknown[]): Json {
  return { example, ...schema };
}

/** Progenitor takes `default` for one more success, and knows ranges. */
function toRanges(operation: Json, { default: anyOther, ...responses }: Json): Json {
  if (anyOther === undefined) return operation;
  return { ...operation, responses: { ...responses, "4XX": anyOther, "5XX": anyOther } };
}
