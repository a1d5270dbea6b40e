/** Routes about the server itself: books, probes. */

import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { readStats } from "../memory/state/stats.ts";
import { isOwn } from "./access/rights.ts";
import { answer } from "./answer.ts";
import { json } from "./contract.ts";
import type { Environment, Services } from "./environment.ts";
import { alwaysPossible, declareFailures } from "./problem.ts";
import * as schemas from "./schemas/stats.ts";
import { toServerPool } from "./to-wire.ts";

const Probe = z.object({ status: z.enum(["ok"]) }).openapi("Probe");
const tags = ["host"];

const stats = createRoute({
  operationId: "getStats",
  method: "get",
  path: "/v1/stats",
  tags,
  summary: "The books: bytes, inodes, regions, traffic",
  description: "What limits are held against, and what the file system has left.",
  responses: { 200: json("As of now.", schemas.Stats), ...declareFailures(...alwaysPossible) },
});

const livez = createRoute({
  operationId: "isLive",
  method: "get",
  path: "/livez",
  tags,
  summary: "Whether the process answers",
  description: "Says nothing of the store: a server that recovers or stops is alive.",
  responses: { 200: json("It does.", Probe), ...declareFailures(...alwaysPossible) },
});

const readyz = createRoute({
  operationId: "isReady",
  method: "get",
  path: "/readyz",
  tags,
  summary: "Whether requests are welcome: not before recovery and preload are done, not while it stops",
  description: "For load balancers and orchestrators: 503 with the reason as long as requests should go elsewhere.",
  responses: { 200: json("They are.", Probe), ...declareFailures(...alwaysPossible, "not-ready", "shutting-down") },
});

export function defineHostRoutes(app: OpenAPIHono<Environment>, services: Services): void {
  const { store, traffic, refuseUnlessReady = () => store.refuseIfStopping() } = services;
  app.openapi(stats, (c) => {
    const { requests, receivedBytes, sentBytes } = traffic;
    const http = { requests, received_bytes: receivedBytes, sent_bytes: sentBytes };
    const caller = c.get("caller");
    const seen = {
      models: caller.models,
      isOwn: (theirs: { readonly createdBy: string | null }) => isOwn(caller, theirs),
    };
    const { journalBytes, pools, ...books } = readStats(store, caller.role === "admin" ? undefined : seen);
    const sums = { pools: pools.map(toServerPool), journal_bytes: journalBytes };
    return answer(
      c,
      { instance: store.instance, version: services.version, epoch: store.epoch, ...sums, ...books, http },
      200,
    );
  });

  app.openapi(livez, (c) => answer(c, { status: "ok" } as const, 200));

  app.openapi(readyz, (c) => {
    refuseUnlessReady();
    return answer(c, { status: "ok" } as const, 200);
  });
}
