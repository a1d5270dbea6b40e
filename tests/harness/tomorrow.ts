/**
 * A server as a later version may be: it hands every request on to a real one, and changes the answer's JSON. Each word that
 * may grow, by the document's own account, is one that today's document has not, and every object has one more member.
 */

import { document } from "./answers.ts";

/** What a word of today is called tomorrow. */
export function tomorrows(word: string): string {
  return `${word}-of-tomorrow`;
}

/** Members whose names are their users', so that a further one would be one of theirs. */
const maps = new Set(["labels"]);
const words = findWords(document.components.schemas);

export function startTomorrow(url: string) {
  const server = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: (request) => handOn(request, url) });
  return { url: `http://127.0.0.1:${server.port}`, [Symbol.asyncDispose]: () => server.stop(true) };
}

async function handOn(request: Request, url: string): Promise<Response> {
  const { pathname, search } = new URL(request.url);
  const headers = new Headers(request.headers);
  headers.delete("host");
  const body = request.body === null ? {} : { body: await request.bytes() };
  const response = await fetch(url + pathname + search, { method: request.method, headers, ...body });
  const { status } = response;
  const type = response.headers.get("content-type") ?? "";
  return new Response(JSON.stringify(toTomorrow(await response.json())), { status, headers: { "content-type": type } });
}

function toTomorrow(value: unknown, key = ""): unknown {
  if (typeof value === "string") return words.get(key)?.has(value) ? tomorrows(value) : value;
  if (Array.isArray(value)) return value.map((item) => toTomorrow(item, key));
  if (typeof value !== "object" || value === null || maps.has(key)) return value;
  const entries = Object.entries(value).map(([name, item]) => [name, toTomorrow(item, name)] as const);
  return { ...Object.fromEntries(entries), tomorrow: { since: "9.0.0" } };
}

/** Every member, anywhere in the schemas, whose word may grow, with its words of today. */
function findWords(schemas: unknown): ReadonlyMap<string, ReadonlySet<unknown>> {
  const found = new Map<string, Set<unknown>>();
  const look = (schema: unknown, name: string): void => {
    if (typeof schema !== "object" || schema === null) return;
    const { examples, items, properties = {}, allOf = [], anyOf = [] } = schema as Schema;
    for (const word of examples ?? []) found.getOrInsertComputed(name, () => new Set()).add(word);
    look(items, name);
    for (const [member, inner] of Object.entries(properties)) look(inner, member);
    for (const part of [...allOf, ...anyOf]) look(part, name);
  };
  for (const schema of Object.values(schemas as object)) look(schema, "");
  return found;
}

interface Schema {
  readonly examples?: readonly unknown[];
  readonly items?: unknown;
  readonly properties?: object;
  readonly allOf?: readonly unknown[];
  readonly anyOf?: readonly unknown[];
}
