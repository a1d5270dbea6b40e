/** The OpenAPI document, from the routes as they stand. `openapi.yaml` is its committed copy. */

import assert from "node:assert/strict";
import type { OpenAPIHono } from "@hono/zod-openapi";
import type { Environment } from "./environment.ts";
import { withIntegerFormats } from "./integer-formats.ts";

export function toDocument(app: OpenAPIHono<Environment>, version: string) {
  const { webhooks = {}, ...document } = app.getOpenAPI31Document({
    openapi: "3.1.0",
    info: {
      title: "tensord",
      version,
      license: { name: "Apache-2.0", url: "https://www.apache.org/licenses/LICENSE-2.0" },
      description:
        "One copy of every tensor per machine. Allocate a region, map the file that its descriptor names, and no tensor " +
        "byte travels here. Failures are RFC 9457 Problem Details. Every answer has an `X-Request-Id`: the request's, or " +
        "a new one; and the headers that keep a browser from making more of it than it says. Where the server has tokens, " +
        "every request but a probe carries one in `Authorization: Bearer`, and none is taken from a URL or a cookie.",
    },
    // Whether a token is needed is the operator's to say. Declared, half of the generators would make clients that need one always.
    security: [],
    servers: [
      { url: "http://127.0.0.1:7411", description: "The default TCP address; the Unix socket has the same routes." },
    ],
    tags: [
      {
        name: "regions",
        description: "One memory object each: the unit of allocation, mapping, sealing and deletion.",
      },
      { name: "models", description: "Pools of regions, each with a memory limit." },
      { name: "sessions", description: "One worker's stay each: what it owns ends with it." },
      { name: "leases", description: "For readers that cannot hold a kernel lock." },
      { name: "operations", description: "Long work that goes on by itself, such as copies." },
      { name: "elastic-pools", description: "Pages of a device that come and go in one range of addresses." },
      { name: "events", description: "Every change, live and by page." },
      { name: "host", description: "The server itself." },
    ],
  });
  assert(Object.keys(webhooks).length === 0, "no webhook is defined, and an empty list of them is noise");
  return withIntegerFormats(document);
}
