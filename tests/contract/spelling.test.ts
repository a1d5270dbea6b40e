/** Every name that the document has for what a client writes or reads is spelled in one way. */

import { expect, test } from "bun:test";
import { eventTypes } from "../../src/routes/schemas/event-data.ts";
import { document, operations } from "../harness/answers.ts";
import { isSnakeCase } from "../harness/spelling.ts";

/** The members of each object below `value`, by their names. */
function namesIn(value: unknown): string[] {
  if (typeof value !== "object" || value === null) return [];
  const { type, properties = {} } = value as { type?: unknown; properties?: object };
  return [...(type === "object" ? Object.keys(properties) : []), ...Object.values(value).flatMap(namesIn)];
}

test("every member of a schema, and every parameter that is no header, is in snake_case", () => {
  const members = namesIn(document);
  const parameters = operations.flatMap(({ parameters = [] }) => parameters).filter((one) => one.in !== "header");
  const names = new Set([...members, ...parameters.map(({ name }) => name)]);
  for (const type of eventTypes) names.delete(type);
  expect(names.size).toBeGreaterThan(150);
  expect([...names].filter((name) => !isSnakeCase(name))).toEqual([]);
});
