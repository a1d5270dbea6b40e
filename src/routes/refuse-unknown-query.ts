/**
 * A query parameter that a route does not take is refused, as an unknown field of a body is: a filter that was misspelt
 * would otherwise answer everybody's.
 */

import { type RouteConfig, z } from "@hono/zod-openapi";
import type { Context } from "hono";
import type { Environment } from "./environment.ts";
import { toKey } from "./find-operation.ts";
import { toValidationFailure } from "./validation-failure.ts";

/**
 * @param others the queries of routes outside of the document, by method and path; those that are not there take none.
 * @throws TensordError `validation-failed` with the names.
 */
export function refuseUnknownQuery(
  c: Context<Environment>,
  operation: RouteConfig | undefined,
  others: Readonly<Record<string, z.ZodObject>>,
): void {
  // Almost no request has a query, and what is no route is not found.
  if (!c.req.url.includes("?") || toKey(c).endsWith(" /*")) return;
  const query = operation === undefined ? others[toKey(c)] : toQuery(operation);
  const known = Object.keys(query?.shape ?? {});
  const unknown = Object.keys(c.req.queries()).filter((name) => !known.includes(name));
  if (unknown.length > 0) throw toValidationFailure(unknown.map((name) => toIssue(name, known)));
}

function toQuery(operation: RouteConfig): z.ZodObject | undefined {
  const query = operation.request?.query;
  return query instanceof z.ZodObject ? query : undefined;
}

function toIssue(name: string, known: readonly string[]) {
  const want = known.length === 0 ? "the route takes no query" : `want ${known.join(", ")}`;
  return { path: [name], message: `there is no such query parameter, ${want}` };
}
