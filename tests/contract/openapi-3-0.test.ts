/** The copy of the document for generators that read OpenAPI 3.0 only: it says the same, in the words of 3.0. */

import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { openApi30Path, toOpenApi30Yaml } from "../../scripts/openapi.ts";
import { toOpenApi30 } from "../../src/routes/openapi-3-0.ts";
import { document } from "../harness/answers.ts";
import { withApp } from "../harness/app.ts";

type Json = Readonly<Record<string, unknown>>;

const copy = toOpenApi30(document);

/** Every object inside that is no example. */
function* walk(value: unknown): Generator<Json> {
  if (typeof value !== "object" || value === null) return;
  if (!Array.isArray(value)) yield value as Json;
  for (const [key, item] of Object.entries(value)) if (key !== "example") yield* walk(item);
}

const convert = (schema: Json) => toOpenApi30({ schema }).schema as Json;

describe("the copy in OpenAPI 3.0.3", () => {
  test("is committed as it is made, byte for byte", () => {
    expect(readFileSync(openApi30Path, "utf8")).toBe(toOpenApi30Yaml());
  });

  test(
    "is served as it is made",
    withApp(async (app) => {
      const { status, headers, body } = await app.request("GET", "/openapi-3.0.json");
      expect([status, headers.get("content-type")]).toEqual([200, "application/json"]);
      expect(body).toEqual(JSON.parse(JSON.stringify(copy)));
    }),
  );

  test("has no form that only 3.1 has", () => {
    const objects = [...walk(copy)];
    expect(objects.length).toBeGreaterThan(1000);
    for (const word of ["examples", "anyOf", "const", "webhooks"]) {
      expect(objects.filter((object) => Array.isArray(object[word]) || word in copy)).toEqual([]);
    }
    expect(objects.filter(({ type }) => Array.isArray(type) || type === "null")).toEqual([]);
  });

  test("may be null wherever the document may, and has its operations, schemas and members", () => {
    const mayBeNull = (anyOf: unknown) => Array.isArray(anyOf) && anyOf.some(({ type }) => type === "null");
    const nullables = [...walk(document)].filter(({ type, anyOf }) => Array.isArray(type) || mayBeNull(anyOf));
    expect([...walk(copy)].filter(({ nullable }) => nullable === true).length).toBe(nullables.length);
    const members = ({ paths, components }: typeof document) => [
      Object.entries(paths).map(([path, methods]) => [path, Object.keys(methods)]),
      Object.entries(components.schemas).map(([name, { properties = {}, required = [] }]) => {
        return [name, Object.keys(properties as object), required];
      }),
    ];
    expect(members(copy)).toEqual(members(document));
  });

  test("says of each form of null what 3.0 has for it", () => {
    const text = { type: ["string", "null"], description: "A name.", examples: ["w", "b"] };
    expect(convert(text)).toEqual({ type: "string", nullable: true, description: "A name.", example: "w" });
    const reference = { $ref: "#/components/schemas/Checksum" };
    expect(convert({ anyOf: [reference, { type: "null" }] })).toEqual({ nullable: true, allOf: [reference] });
  });

  test("is not made of what 3.0 cannot say", () => {
    expect(() => convert({ type: ["string", "integer"] })).toThrow("one type and null");
    expect(() => convert({ anyOf: [{ type: "string" }, { type: "integer" }] })).toThrow("may be null");
  });

  test("has ranges of statuses for any other failure, which progenitor reads and `default` it does not", () => {
    for (const { responses } of Object.values(copy.paths).flatMap((methods) => Object.values(methods))) {
      expect(responses).not.toHaveProperty("default");
      expect(responses["4XX"]).toEqual(responses["5XX"] as never);
      expect(responses["5XX"]?.content).toHaveProperty(["application/problem+json"]);
    }
  });
});
