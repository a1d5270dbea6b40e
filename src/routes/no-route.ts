/** What answers where no route does: that there is none, or which methods it takes instead, which OPTIONS asks. */

import type { OpenAPIHono } from "@hono/zod-openapi";
import type { Context } from "hono";
import { methodNotAllowed } from "hono/method-not-allowed";
import { TensordError } from "../memory/error.ts";
import type { Store } from "../memory/state/store.ts";
import type { Environment } from "./environment.ts";
import { toProblem, toProblemResponse } from "./problem.ts";

/** Every request would pass a middleware, and pay for it. */
export function noRoute(app: OpenAPIHono<Environment>, store: Store): (c: Context<Environment>) => Promise<Response> {
  const lookForMethods = methodNotAllowed({ app, onMethodNotAllowed: answerMethods });
  return async function noRoute(c) {
    if (c.req.method === "OPTIONS" && c.req.path === "/") return answerCheck(c, store);
    c.res = new Response(null, { status: 404 });
    await lookForMethods(c, async () => {});
    // One problem is written, since what is written is counted.
    if (c.res.status === 404) c.res = refuseRoute(c);
    return c.res;
  };
}

/** What haproxy asks unless it is told a path: whether requests are welcome. @throws TensordError `shutting-down`. */
function answerCheck(c: Context<Environment>, store: Store): Response {
  store.refuseIfStopping();
  return allow(c, ["GET", "HEAD", "OPTIONS"]);
}

function refuseRoute(c: Context<Environment>): Response {
  const detail = `Cannot find ${show(c)}: there is no such route`;
  return answer(c, new TensordError("route-not-found", detail, { hint: "See /openapi.json for all routes." }));
}

/** @param methods of the routes, HEAD among them where GET is. */
function answerMethods(c: Context, methods: readonly string[]): Response {
  const allowed = [...methods, "OPTIONS"];
  if (c.req.method === "OPTIONS") return allow(c, allowed);
  // Every GET answers HEAD too, which therefore needs no word.
  const named = methods.filter((method) => method !== "HEAD");
  const detail = `Cannot ${show(c)}: it takes ${named.join(", ")}`;
  const response = answer(c, new TensordError("method-not-allowed", detail, { hint: `Use ${named.join(" or ")}.` }));
  response.headers.set("allow", allowed.join(", "));
  return response;
}

/** No word of another origin, so that a browser's question whether its page may call is answered with no. */
function allow(c: Context<Environment>, methods: readonly string[]): Response {
  return new Response(null, {
    status: 204,
    headers: { allow: methods.join(", "), "x-request-id": c.get("requestId") },
  });
}

const show = ({ req }: Context): string => `${req.method} ${JSON.stringify(req.path.slice(0, 200))}`;

function answer(c: Context, error: TensordError): Response {
  return toProblemResponse(
    toProblem(error, c.get("requestId"), () => {}),
    c.env,
  );
}
