/** The operations of the document as the router knows them: by method and path. */

import type { OpenAPIHono, RouteConfig } from "@hono/zod-openapi";
import type { Context } from "hono";
import { routePath } from "hono/route";
import type { Environment } from "./environment.ts";

/** Where no operation is: a route outside of the document, or none at all. */
export type FindOperation = (c: Context<Environment>) => RouteConfig | undefined;

/** Ask for no operation before every route is defined. */
export function findOperations(app: OpenAPIHono<Environment>): FindOperation {
  let operations: ReadonlyMap<string, RouteConfig> | undefined;
  return function findOperation(c) {
    operations ??= readOperations(app);
    return operations.get(toKey(c));
  };
}

/** `GET /v1/regions/:region`: the route that answers, or `GET /*` where none does. */
export function toKey(c: Context<Environment>): string {
  return `${c.req.method} ${routePath(c, -1)}`;
}

function readOperations(app: OpenAPIHono<Environment>): ReadonlyMap<string, RouteConfig> {
  const operations = new Map<string, RouteConfig>();
  for (const definition of app.openAPIRegistry.definitions) {
    if (definition.type !== "route") continue;
    const { method, path } = definition.route;
    operations.set(`${method.toUpperCase()} ${path.replaceAll(/\{([a-z_]+)\}/g, ":$1")}`, definition.route);
  }
  return operations;
}
