/** What answers where no route does: that there is none, or which methods it takes instead. */

import type { OpenAPIHono } from "@hono/zod-openapi";
import type { Context } from "hono";
import { methodNotAllowed } from "hono/method-not-allowed";
import { TensordError } from "../memory/error.ts";
import type { Environment } from "./environment.ts";
import { toProblem, toProblemResponse } from "./problem.ts";

/** Every request would pass a middleware, and pay for it. */
export function noRoute(app: OpenAPIHono<Environment>): (c: Context<Environment>) => Promise<Response> {
  const lookForMethods = methodNotAllowed({ app, onMethodNotAllowed: refuseMethod });
  return async function noRoute(c) {
    c.res = new Response(null, { status: 404 });
    await lookForMethods(c, async () => {});
    // One problem is written, since what is written is counted.
    if (c.res.status === 404) c.res = refuseRoute(c);
    return c.res;
  };
}

function refuseRoute(c: Context<Environment>): Response {
  const detail = `Cannot find ${show(c)}: there is no such route`;
  return answer(c, new TensordError("route-not-found", detail, { hint: "See /openapi.json for all routes." }));
}

/** Every GET answers HEAD too, which therefore needs no word. */
function refuseMethod(c: Context, methods: readonly string[]): Response {
  const allow = methods.filter((method) => method !== "HEAD");
  const detail = `Cannot ${show(c)}: it takes ${allow.join(", ")}`;
  const response = answer(c, new TensordError("method-not-allowed", detail, { hint: `Use ${allow.join(" or ")}.` }));
  response.headers.set("allow", allow.join(", "));
  return response;
}

const show = ({ req }: Context): string => `${req.method} ${JSON.stringify(req.path.slice(0, 200))}`;

function answer(c: Context, error: TensordError): Response {
  return toProblemResponse(
    toProblem(error, c.get("requestId"), () => {}),
    c.env?.sent,
  );
}
