/**
 * Who asks, and whether the role may do what the route does: asked of every request before its body is read. What it is done to,
 * the route's handler asks about (`checks.ts`).
 */

import type { RouteConfig } from "@hono/zod-openapi";
import type { Context } from "hono";
import type { Environment, Services } from "../environment.ts";
import { toKey } from "../find-operation.ts";
import { anybody } from "./caller.ts";
import { checkRole } from "./checks.ts";
import { isOperation, type Operation, openOperations } from "./rights.ts";

/** Routes that the document does not have. */
const others: Readonly<Record<string, Operation>> = {
  "GET /v1/events/ws": "listEvents",
  "GET /v1/sessions/:session/hold": "holdSession",
};

/** What is the same at every server: it tells nothing of this one. */
const openRoutes = /^GET \/(docs|docs\/:asset|openapi\.json|openapi-3\.0\.json|asyncapi\.json)$/;

/** @throws TensordError `unauthorized`, `too-many-requests`, `forbidden`. */
export function authorize(
  c: Context<Environment>,
  operation: RouteConfig | undefined,
  { authenticate }: Pick<Services, "authenticate">,
): void {
  if (authenticate === undefined) return c.set("caller", anybody);
  const key = toKey(c);
  const name = operation?.operationId ?? others[key] ?? "";
  // What is no route is not found, whoever asks.
  if (openOperations.has(name) || openRoutes.test(key) || key.endsWith(" /*")) return;
  const caller = authenticate(c.req.header("authorization"));
  c.set("caller", caller);
  // A route without a row is nobody's but an administrator's.
  if (isOperation(name)) checkRole(caller, name);
  else if (caller.role !== "admin") throw new Error(`no right says who may ${key}`);
}

/** Who asked, as events and logs have it: the token's name, or where there is none the request's id. */
export function actorOf(c: Context<Environment>): string {
  return c.get("caller")?.name ?? c.get("requestId");
}
