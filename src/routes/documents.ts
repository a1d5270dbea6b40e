/** The documents as a server serves them, each made when it is asked for, so that no start waits for one. */

import type { OpenAPIHono } from "@hono/zod-openapi";
import { answer } from "./answer.ts";
import { type OpenApi, toAsyncApi } from "./asyncapi.ts";
import { toDocument } from "./document.ts";
import type { Environment, Services } from "./environment.ts";
import { toOpenApi30 } from "./openapi-3-0.ts";
import { belowPrefix } from "./prefix.ts";

export function defineDocuments(app: OpenAPIHono<Environment>, { version }: Services): void {
  app.get("/openapi.json", (c) => {
    return answer(c, belowPrefix(toDocument(app, version), c.req.header("x-forwarded-prefix")), 200);
  });

  app.get("/openapi-3.0.json", (c) => {
    return answer(c, belowPrefix(toOpenApi30(toDocument(app, version)), c.req.header("x-forwarded-prefix")), 200);
  });

  app.get("/asyncapi.json", (c) => {
    return answer(c, toAsyncApi(toDocument(app, version) as unknown as OpenApi, "./openapi.json"), 200);
  });
}
