/** Tells how long each operation took, by its operationId, so that clients cannot make up names. */

import type { OpenAPIHono } from "@hono/zod-openapi";
import type { MiddlewareHandler } from "hono";
import { routePath } from "hono/route";
import type { Environment, Services } from "./environment.ts";

/** Where no operation is: a route outside of the document, or none at all. */
const noOperation = "none";

export function observe(app: OpenAPIHono<Environment>, services: Services): MiddlewareHandler<Environment> {
  let operations: ReadonlyMap<string, string> | undefined;
  return async function observe(c, next) {
    const begin = performance.now();
    await next();
    // All routes are there when the first request comes, and none before.
    operations ??= readOperations(app);
    const operation = operations.get(`${c.req.method} ${routePath(c, -1)}`) ?? noOperation;
    services.observe(operation, c.req.method, c.res.status, (performance.now() - begin) / 1000);
  };
}

/** operationId by method and path, as the router writes them. */
function readOperations(app: OpenAPIHono<Environment>): ReadonlyMap<string, string> {
  const operations = new Map<string, string>();
  for (const definition of app.openAPIRegistry.definitions) {
    if (definition.type !== "route") continue;
    const { method, path, operationId } = definition.route;
    const routed = path.replaceAll(/\{([a-z_]+)\}/g, ":$1");
    if (operationId !== undefined) operations.set(`${method.toUpperCase()} ${routed}`, operationId);
  }
  return operations;
}
