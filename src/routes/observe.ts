/** Tells how long each operation took, by its operationId, so that clients cannot make up names. */

import type { MiddlewareHandler } from "hono";
import type { Environment, Services } from "./environment.ts";
import type { FindOperation } from "./find-operation.ts";

/** Where no operation is. */
const noOperation = "none";

export function observe(findOperation: FindOperation, services: Services): MiddlewareHandler<Environment> {
  return async function observe(c, next) {
    const begin = performance.now();
    await next();
    const operation = findOperation(c)?.operationId ?? noOperation;
    services.observe(operation, c.req.method, c.res.status, (performance.now() - begin) / 1000);
  };
}
