/**
 * The documents as a server serves them. Each is made when it is first asked for, so that no start waits for one, and kept,
 * since it takes tens of milliseconds of the event loop.
 */

import type { OpenAPIHono } from "@hono/zod-openapi";
import { answer } from "./answer.ts";
import { type OpenApi, toAsyncApi } from "./asyncapi.ts";
import { toDocument } from "./document.ts";
import type { Environment, Services } from "./environment.ts";
import { toOpenApi30 } from "./openapi-3-0.ts";
import { belowPrefix } from "./prefix.ts";

export function defineDocuments(app: OpenAPIHono<Environment>, { version }: Services): void {
  const openApi = once(() => toDocument(app, version));
  const openApi30 = once(() => toOpenApi30(openApi()));
  const asyncApi = once(() => toAsyncApi(openApi() as unknown as OpenApi, "./openapi.json"));

  app.get("/openapi.json", (c) => answer(c, belowPrefix(openApi(), c.req.header("x-forwarded-prefix")), 200));
  app.get("/openapi-3.0.json", (c) => answer(c, belowPrefix(openApi30(), c.req.header("x-forwarded-prefix")), 200));
  app.get("/asyncapi.json", (c) => answer(c, asyncApi(), 200));
}

function once<Value>(make: () => Value): () => Value {
  let made: { readonly value: Value } | undefined;
  return function get() {
    made ??= { value: make() };
    return made.value;
  };
}
