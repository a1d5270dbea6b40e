/**
 * What the OpenAPI document says of each operation, as types: which path goes with which method, and what it takes and
 * answers. Besides that, the paths themselves, of which each part is checked.
 */

import { TensordError } from "../errors.ts";
import type { paths } from "../generated/openapi.ts";
import type { FromWire } from "./wire.ts";

export type Method = "GET" | "POST" | "PUT" | "PATCH" | "DELETE";

/** The paths that have this method. */
export type Path<M extends Method> = {
  [P in keyof paths]: paths[P][Lowercase<M>] extends object ? P : never;
}[keyof paths];

export type Operation<M extends Method, P extends Path<M>> = paths[P][Lowercase<M>];

/** The answer of a success, as the wire has it. */
export type Answer<Op> = Op extends { responses: infer Responses }
  ? ContentOf<Responses[keyof Responses & (200 | 201)]>
  : never;

/** A request's body in our words. An option that the caller left out may be there as undefined: JSON drops it. */
export type Body<Op> = Op extends { requestBody?: infer Request } ? Given<FromWire<ContentOf<Request>>> : never;

/** What an operation takes, by the places in which it goes. */
export type Parameters<Op> = PathParameters<Op> & QueryParameters<Op> & BodyParameter<Op>;

type ContentOf<Message> = Message extends { content: { "application/json": infer Content } } ? Content : never;

type Given<Fields> = {
  [Key in keyof Fields]: Partial<Pick<Fields, Key>> extends Pick<Fields, Key> ? Fields[Key] | undefined : Fields[Key];
};

type PathParameters<Op> = Op extends { parameters: { path: infer Values } }
  ? { readonly path: Values }
  : { readonly path?: undefined };

type QueryParameters<Op> = Op extends { parameters: { query?: infer Values } }
  ? { readonly query?: Given<NonNullable<Values>> | undefined }
  : { readonly query?: undefined };

type BodyParameter<Op> = [Body<Op>] extends [never] ? { readonly body?: undefined } : { readonly body: Body<Op> };

/**
 * A path with its parameters in their places, and the query that was given.
 * @throws TensordError `validation-failed` if a name or an id is none
 */
export function toPath(template: string, parameters: object = {}, query: object = {}): string {
  const parts = new Map<string, unknown>(Object.entries(parameters));
  const path = template.replaceAll(/\{(\w+)\}/g, (_, key: string) => checkPart(key, String(parts.get(key))));
  const search = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) if (value !== undefined) search.set(key, String(value));
  return search.size === 0 ? path : `${path}?${search}`;
}

/** Checked here because a name like ".." would be folded away, and the request would reach another route. */
function checkPart(key: string, value: string): string {
  if (key === "model") return checkName(value, "model");
  if (key === "name") return checkName(value, "region");
  if (/^[A-Za-z0-9_-]{1,128}$/.test(value)) return value;
  throw new TensordError("validation-failed", `Cannot ask for ${key} "${value}": it is no ${key} id`, {
    hint: key === "region" ? "ids begin with reg_" : undefined,
  });
}

function checkName(name: string, what: string): string {
  if (/^(?!\.)[A-Za-z0-9._-]{1,128}$/.test(name)) return name;
  throw new TensordError(
    "validation-failed",
    `Cannot ask for ${what} "${name}": want 1 to 128 of A-Z, a-z, 0-9, ".", "_" and "-", not beginning with "."`,
    { hint: "write org/name as org--name" },
  );
}
