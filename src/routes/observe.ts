/**
 * What is known of a request before anything is asked of it: its id, and which operation answers. Tells how long each operation
 * took, by its operationId, so that clients cannot make up names.
 */

import type { Context, MiddlewareHandler } from "hono";
import type { Environment, Services } from "./environment.ts";
import type { FindOperation } from "./find-operation.ts";

/** Where no operation is. */
const noOperation = "none";
const idCharacters = 128;

export function observe(findOperation: FindOperation, services: Services): MiddlewareHandler<Environment> {
  return async function observe(c, next) {
    const begin = performance.now();
    setId(c);
    const operation = findOperation(c);
    c.set("operation", operation);
    await next();
    const seconds = (performance.now() - begin) / 1000;
    services.observe(operation?.operationId ?? noOperation, c.req.method, c.res.status, seconds);
  };
}

/** The client's own, if it is short and plain. */
function setId(c: Context<Environment>): void {
  const said = c.req.header("x-request-id") ?? "";
  const id = said === "" || said.length > idCharacters || /[^\w\-=]/.test(said) ? crypto.randomUUID() : said;
  c.set("requestId", id);
  c.header("X-Request-Id", id);
}
