/** The app, assembled: what every request passes, the routes, and what answers when none does. Knows no transport. */

import { OpenAPIHono } from "@hono/zod-openapi";
import type { Context, MiddlewareHandler } from "hono";
import { bodyLimit } from "hono/body-limit";
import { HTTPException } from "hono/http-exception";
import { methodNotAllowed } from "hono/method-not-allowed";
import { requestId } from "hono/request-id";
import { TensordError } from "../memory/error.ts";
import { limits } from "../memory/limits.ts";
import { defineClaimRoutes } from "./claims.ts";
import { dataPath, defineDataRoutes } from "./data.ts";
import { defineDiagnosisRoutes } from "./diagnosis.ts";
import { defineDocsPage } from "./docs-page.ts";
import type { Environment, Services, Traffic } from "./environment.ts";
import { defineEventRoutes, socketQueries } from "./events.ts";
import { defineEvictionRoute } from "./eviction.ts";
import { defineHostRoutes } from "./host.ts";
import { checkJsonBounds } from "./json-bounds.ts";
import { defineLeaseRoutes } from "./leases.ts";
import { defineModelRoutes } from "./models.ts";
import { observe } from "./observe.ts";
import { findOperations } from "./operations.ts";
import { toProblem, toProblemResponse, unsupportedMediaType } from "./problem.ts";
import { refuseUnknownQuery } from "./refuse-unknown-query.ts";
import { defineRegionRoutes } from "./region.ts";
import { defineRegionsRoutes } from "./regions.ts";
import { KnownEvents } from "./schemas/event-data.ts";
import { TensorReference } from "./schemas/reference.ts";
import { FailureCode } from "./schemas/words.ts";
import { defineSealRoutes } from "./seal.ts";
import { defineSessionRoutes } from "./sessions.ts";
import { toValidationFailure } from "./validation-failure.ts";

/**
 * The whole HTTP contract over `services`.
 * @example
 * const response = await createApp(services).request("/v1/stats");
 */
export function createApp(services: Services): OpenAPIHono<Environment> {
  const app = new OpenAPIHono<Environment>({
    strict: false,
    defaultHook: (result) => {
      if (!result.success) throw toValidationFailure(result.error.issues);
    },
  });
  const findOperation = findOperations(app);
  app.use(requestId({ limitLength: 128 }));
  app.use(observe(findOperation, services));
  app.use(rememberSignal());
  app.use(refuseUnknownQuery(findOperation, socketQueries));
  app.use(limitBody(services.traffic));
  defineRegionsRoutes(app, services);
  defineRegionRoutes(app, services);
  defineSealRoutes(app, services);
  defineDataRoutes(app, services);
  defineModelRoutes(app, services);
  defineEventRoutes(app, services);
  defineEvictionRoute(app, services);
  defineSessionRoutes(app, services);
  defineClaimRoutes(app, services);
  defineLeaseRoutes(app, services);
  defineHostRoutes(app, services);
  defineDiagnosisRoutes(app, services);
  defineDocsPage(app);
  app.openAPIRegistry.register("KnownEvents", KnownEvents);
  app.openAPIRegistry.register("FailureCode", FailureCode);
  app.openAPIRegistry.register("TensorReference", TensorReference);
  app.onError((error, c) => {
    const id = c.get("requestId");
    const { aborted = false, reason } = c.get("signal") ?? {};
    // A body that was cut off fails with an error of its own.
    const isGone = aborted && (error === reason || error.name === "AbortError");
    const failure = isGone
      ? new TensordError("cancelled", "Cannot answer: the client went away", { hint: "Ask again." })
      : error;
    return toProblemResponse(
      toProblem(failure, id, (cause) => services.onUnexpected(cause, id)),
      c.env?.sent,
    );
  });
  app.notFound(refuse(app));
  return app;
}

/** Reading a body may replace the raw request, and its signal with it. */
function rememberSignal(): MiddlewareHandler<Environment> {
  return async function rememberSignal(c, next) {
    c.set("signal", c.req.raw.signal);
    await next();
  };
}

function limitBody(traffic: Traffic): MiddlewareHandler<Environment> {
  const refuse = () => {
    throw new TensordError("payload-too-large", `Cannot read the body: want at most ${limits.requestBodyBytes} bytes`, {
      hint: "Tensor bytes are written to the mapping, never sent; many tensors can be split into several regions.",
    });
  };
  const limit = bodyLimit({ maxSize: limits.requestBodyBytes, onError: refuse });
  return async function limitBody(c, next) {
    if (c.req.method === "GET" || c.req.method === "HEAD") return next();
    if (c.req.method === "PUT" && dataPath.test(c.req.path)) return next();
    return limit(c, async () => {
      const bytes = await c.req.arrayBuffer();
      traffic.receivedBytes += bytes.byteLength;
      const text = decode(bytes);
      // What reads the body from here on, `requireBody` and the validator, finds it decoded.
      (c.req.bodyCache as { text?: unknown }).text = Promise.resolve(text);
      if (text !== "" && !isJson(c.req.header("content-type"))) throw unsupportedMediaType();
      checkJsonBounds(text);
      await next();
    });
  };
}

const utf8 = new TextDecoder("utf-8", { fatal: true });

function decode(bytes: ArrayBuffer): string {
  try {
    return utf8.decode(bytes);
  } catch (cause) {
    throw new HTTPException(400, { cause });
  }
}

function isJson(contentType: string | undefined): boolean {
  return /^application\/([a-z.-]+\+)?json\s*(;|$)/i.test(contentType ?? "");
}

/** What answers where no route has. Every request would pass a middleware, and pay for it. */
function refuse(app: OpenAPIHono<Environment>): (c: Context<Environment>) => Promise<Response> {
  const lookForMethods = methodNotAllowed({ app, onMethodNotAllowed: refuseMethod });
  return async function refuse(c) {
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
