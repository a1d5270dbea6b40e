/**
 * Holds answers against the OpenAPI document: the status and the failure are declared, the body has every member that the
 * schema names and none that it does not, and a problem says what to do.
 */

import { expect } from "bun:test";
import { z } from "@hono/zod-openapi";
import type { FailureCode } from "../../src/memory/error.ts";
import { createApp } from "../../src/routes/app.ts";
import { toDocument } from "../../src/routes/document.ts";
import type { Services } from "../../src/routes/environment.ts";
import { problemMediaType } from "../../src/routes/problem.ts";
import type * as models from "../../src/routes/schemas/model.ts";
import type { ProblemBody } from "../../src/routes/schemas/problem.ts";
import type * as regions from "../../src/routes/schemas/region.ts";
import type * as books from "../../src/routes/schemas/stats.ts";
import { isSnakeCase } from "./spelling.ts";

/** The regions of tests are files with names, unless a test says otherwise. */
type Named<Described extends { readonly storage: object }> = Omit<Described, "storage"> & {
  readonly storage: Described["storage"] & { readonly path: string };
};
export type Region = Named<z.infer<typeof regions.Region>>;
/** As lists have it. */
export type ListedRegion = Named<z.infer<typeof regions.RegionFacts>>;
export type RegionDetail = Named<z.infer<typeof regions.RegionDetail>>;
export type RegionList = Omit<z.infer<typeof regions.RegionList>, "items"> & {
  readonly items: readonly ListedRegion[];
};
export type Model = z.infer<typeof models.Model>;
export type ModelList = z.infer<typeof models.ModelList>;
export type Stats = z.infer<typeof books.Stats>;
export type Deletion = z.infer<typeof regions.Deletion>;
export type Verification = z.infer<typeof regions.Verification>;
export type Problem = ProblemBody;

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  /** Parsed if it is JSON, else text; undefined if there is none. */
  readonly body: unknown;
}

export interface Operation {
  readonly operationId: string;
  readonly summary?: string;
  readonly description?: string;
  readonly method: string;
  readonly path: string;
  readonly requestBody?: { readonly required?: boolean; readonly content: Readonly<Record<string, Media>> };
  readonly parameters?: readonly { readonly name: string; readonly in: string; readonly required?: boolean }[];
  readonly responses: Readonly<
    Record<string, { description: string; headers?: object; content?: Readonly<Record<string, Media>> }>
  >;
}

interface Media {
  readonly schema: { readonly $ref?: string };
  readonly example?: unknown;
}

interface Document {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Omit<Operation, "method" | "path">>>>>;
  readonly components: { readonly schemas: Readonly<Record<string, Record<string, unknown>>> };
}

/** The document needs the routes only, so the app gets services that nobody calls. */
export const document = toDocument(createApp({ traffic: {} } as unknown as Services), "0.0.0") as unknown as Document;

export const operations: readonly Operation[] = Object.entries(document.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => ({ ...operation, method: method.toUpperCase(), path })),
);

/** The failures that a response of an operation declares in its description. */
export function declaredCodes(description: string): FailureCode[] {
  return [...description.matchAll(/`([a-z-]+)`:/g)].map(([, code]) => code as FailureCode);
}

/** Answered where no operation is, so no operation declares them. */
const undeclared: readonly unknown[] = ["route-not-found", "method-not-allowed"];

export async function toAnswer(response: Response): Promise<Answer> {
  const { status, headers } = response;
  const text = await response.text();
  if (text === "") return { status, headers, body: undefined };
  const isJson = /^application\/([a-z]+\+)?json/.test(headers.get("content-type") ?? "");
  return { status, headers, body: isJson ? JSON.parse(text) : text };
}

/** @throws an assertion's failure if the document does not allow `answer` to this request. */
export function checkAnswer(method: string, path: string, answer: Answer): void {
  if (answer.status >= 400) checkProblem(answer);
  const operation = findOperation(method, path);
  if (method === "HEAD") return checkHead(operation, answer);
  const code = (answer.body as Partial<Problem> | undefined)?.code;
  // What a path takes is asked of the router, not of an operation.
  if (method === "OPTIONS" && answer.status === 204) return expect(answer.headers.get("allow")).toEndWith("OPTIONS");
  if (operation === undefined) {
    if (!/^\/(openapi|openapi-3\.0|asyncapi)\.json$/.test(path.split("?")[0] ?? "")) expect(undeclared).toContain(code);
    return;
  }
  const declared = operation.responses[String(answer.status)];
  const where = `${operation.operationId} ${answer.status} ${code ?? ""}`;
  if (declared === undefined) throw new Error(`undeclared: ${where}: ${JSON.stringify(answer.body)}`);
  checkHeaders(answer.headers, declared.headers, where);
  if (answer.status >= 400) {
    if (!declaredCodes(declared.description).some((known) => known === code)) throw new Error(`undeclared: ${where}`);
    return;
  }
  const { content = {} } = declared;
  const mediaType = answer.headers.get("content-type")?.split(";")[0];
  if (mediaType === "multipart/byteranges") return expect(declared.description).toContain(`\`${mediaType}\``);
  const mediaTypes: readonly (string | undefined)[] = Object.keys(content);
  expect(mediaTypes.length === 0 ? [undefined] : mediaTypes).toContain(mediaType);
  if (mediaType !== "application/json") return;
  checkSchema(toSchemaName(content[mediaType]), answer.body, where);
}

/** What any answer of HTTP may have, and what the document says of every answer once. */
const general =
  /^(content-(type|length)|date|connection|keep-alive|transfer-encoding|cache-control|vary|x-request-id|x-accel-buffering|x-content-type-options|cross-origin-resource-policy|referrer-policy|content-security-policy)$/;

function checkHeaders(headers: Headers, declared: object | undefined, where: string): void {
  const names = new Set(Object.keys(declared ?? {}).map((name) => name.toLowerCase()));
  const undeclared = [...headers.keys()].filter((name) => !general.test(name) && !names.has(name));
  if (undeclared.length > 0) throw new Error(`undeclared: ${where}: the header ${undeclared.join(", ")}`);
}

/** HEAD has GET's status and no body, not even of a problem. */
function checkHead(operation: Operation | undefined, { status, body }: Answer): void {
  expect(body).toBeUndefined();
  if (operation === undefined) expect(status).toBeOneOf([404, 405]);
  else expect(Object.keys(operation.responses)).toContain(String(status));
}

/** RFC 9457, and the project's own rules: a sentence that says what was asked and what is, and a hint what to do. */
export function checkProblem(answer: Answer): void {
  expect(answer.headers.get("content-type")).toBe(problemMediaType);
  if (answer.body === undefined) return;
  checkSchema("Problem", answer.body, "a problem");
  const problem = answer.body as Problem;
  // It may have any member, but what the document does not name many generated clients cannot read.
  const { properties } = document.components.schemas.Problem as { properties: object };
  expect(Object.keys(problem).filter((member) => !(member in properties))).toEqual([]);
  expect(problem.type).toBe(`urn:tensord:problem:${problem.code}`);
  expect(problem.status).toBe(answer.status);
  expect(problem.title).not.toBe("");
  expect(problem.detail).toMatch(/^Cannot [^:]+.*: .+/s);
  expect(problem.detail.length).toBeLessThan(2000);
  expect(problem.hint).toMatch(/^[A-Z].+\.$/);
  expect(Object.keys(problem).filter((key) => !isSnakeCase(key))).toEqual([]);
}

export function findOperation(method: string, path: string): Operation | undefined {
  const bare = new URL(path, "http://localhost").pathname;
  const wanted = method === "HEAD" ? "GET" : method;
  return operations.find((operation) => operation.method === wanted && toPattern(operation.path).test(bare));
}

function toPattern(path: string): RegExp {
  return new RegExp(`^${path.replaceAll(".", "\\.").replaceAll(/\{[a-z_]+\}/g, "[^/]+")}/?$`);
}

function toSchemaName(media: Media | undefined): string {
  const name = media?.schema.$ref?.split("/").at(-1);
  if (name === undefined) throw new Error("a response without a named schema");
  return name;
}

const compiled = new Map<string, z.ZodType>();
const definitions = toDefinitions();

/** Holds `value` against a schema of the document, in which no member is left that the schema does not name. */
export function checkSchema(name: string, value: unknown, where: string): void {
  const schema = compiled.getOrInsertComputed(name, () =>
    z.fromJSONSchema({ $ref: `#/$defs/${name}`, $defs: definitions }),
  );
  const result = schema.safeParse(value);
  if (!result.success) throw new Error(`${where} is no ${name}: ${z.prettifyError(result.error)}`);
}

function toDefinitions(): Record<string, z.core.JSONSchema.JSONSchema> {
  const text = JSON.stringify(document.components.schemas).replaceAll("#/components/schemas/", "#/$defs/");
  return JSON.parse(text, (_, value) => close(value));
}

/**
 * A schema as this version keeps it: every object closed that is not open on purpose, and every word that may grow one of
 * those that are documented.
 */
export function close(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  if ("if" in value) {
    // A rule over several fields, which zod does not read; `create-rules.test.ts` does.
    const { if: _, else: __, ...schema } = value as { if: unknown; else?: unknown };
    return close(schema);
  }
  if ("properties" in value) return { additionalProperties: false, ...value };
  if (!("examples" in value) || !Array.isArray(value.examples) || !("type" in value)) return value;
  const { examples, ...schema } = value;
  return { ...schema, enum: Array.isArray(value.type) ? [...examples, null] : examples };
}
