/**
 * Operations whose body is JSON. It is parsed and validated in the turn of the handler: the library's own validator would read the
 * body once more and wait three times for what is there already, which every allocation would pay for.
 */

import type { OpenAPIHono, RouteConfig, RouteHandler, z } from "@hono/zod-openapi";
import type { Context, Next } from "hono";
import { HTTPException } from "hono/http-exception";
import { TensordError } from "../memory/error.ts";
import type { Environment } from "./environment.ts";
import { type PlainCheck, toPlainCheck } from "./schemas/plain-check.ts";
import { toValidationFailure } from "./validation-failure.ts";

interface BodyRoute extends RouteConfig {
  readonly request: NonNullable<RouteConfig["request"]> & {
    readonly body: { readonly required: boolean; readonly content: { "application/json": { schema: z.ZodType } } };
  };
}

/**
 * As `app.openapi`, of a route with `body` or `optionalBody` of `contract.ts`. In the handler `c.req.valid("json")` is what the schema
 * makes of the body, which has met it.
 */
export function defineBodyRoute<Route extends BodyRoute>(
  app: OpenAPIHono<Environment>,
  route: Route,
  handler: RouteHandler<Route, Environment>,
): void {
  const { body, ...request } = route.request;
  const { schema } = body.content["application/json"];
  const isPlain = toPlainCheck(schema);
  app.openAPIRegistry.registerPath(route);
  const handle = (c: Context<Environment>, next: Next) => {
    c.req.addValidatedData("json", parseBody(c.get("body") ?? "", schema, isPlain, body.required) as object);
    return (handler as (c: Context<Environment>, next: Next) => Promise<Response>)(c, next);
  };
  app.openapi({ ...(route as RouteConfig), request, hide: true }, handle as never);
}

/** @throws TensordError `malformed-body` if there must be one and is none, `validation-failed`; HTTPException of what is no JSON. */
function parseBody(text: string, schema: z.ZodType, isPlain: PlainCheck, isRequired: boolean): unknown {
  if (text === "" && isRequired) throw noBody();
  const value = text === "" ? {} : parseJson(text);
  if (isPlain(value)) return value;
  const result = schema.safeParse(value);
  if (!result.success) throw toValidationFailure(result.error.issues);
  return result.data;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new HTTPException(400, { cause });
  }
}

function noBody(): TensordError {
  return new TensordError("malformed-body", "Cannot read the body: it is empty", {
    hint: "Send one JSON object, in UTF-8.",
  });
}
