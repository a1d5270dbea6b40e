/**
 * What every request passes: its id, and which operation answers; whether it is let in; and how long that operation took, told by its
 * operationId, so that clients cannot make up names. One middleware, since each is a wait of its own, which an allocation would pay for.
 */

import type { RouteConfig } from "@hono/zod-openapi";
import type { Context, ErrorHandler, MiddlewareHandler } from "hono";
import type { Environment, Services } from "./environment.ts";
import type { FindOperation } from "./find-operation.ts";

/** Where no operation is. */
const noOperation = "none";
const idCharacters = 128;

/** What lets a request in, and may wait for that. It throws what refuses it. */
export type Admit = (c: Context<Environment>, operation: RouteConfig | undefined) => void | Promise<void>;

/** @param answerFailure what answers a request that is not let in, as it does one whose route fails. */
export function observe(
  findOperation: FindOperation,
  admit: Admit,
  answerFailure: ErrorHandler<Environment>,
  services: Services,
): MiddlewareHandler<Environment> {
  return async function observe(c, next) {
    const begin = performance.now();
    setId(c);
    const operation = findOperation(c);
    c.set("operation", operation);
    let isAdmitted = false;
    try {
      const admitted = admit(c, operation);
      if (admitted !== undefined) await admitted;
      isAdmitted = true;
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      c.res = await answerFailure(error, c);
    }
    if (isAdmitted) await next();
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
