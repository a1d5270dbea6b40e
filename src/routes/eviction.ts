/** The route of eviction by request: free bytes now, by policy. */

import { createRoute, type OpenAPIHono } from "@hono/zod-openapi";
import { idOf } from "../memory/journal/region-record.ts";
import { hostPool } from "../memory/naming.ts";
import { evict } from "../memory/regions/evict.ts";
import type { Region } from "../memory/state/region.ts";
import { actorOf } from "./access/authorize.ts";
import { checkModel } from "./access/checks.ts";
import { answer } from "./answer.ts";
import { defineBodyRoute } from "./body-route.ts";
import { body, json } from "./contract.ts";
import type { Environment, Services } from "./environment.ts";
import { alwaysPossible, bodyFailures, declareFailures } from "./problem.ts";
import * as schemas from "./schemas/eviction.ts";
import * as requests from "./schemas/requests.ts";

const request = createRoute({
  operationId: "evict",
  method: "post",
  path: "/v1/evict",
  tags: ["regions"],
  summary: "Free bytes now: evictable, sealed regions that nobody maps, least recently used first",
  description:
    "Goes through the evictable regions that are sealed and that nobody maps until the bytes are free. With " +
    "`dry_run` it only says what would go.",
  request: { body: body(requests.EvictRequest) },
  responses: {
    200: json("What went, what stays and why.", schemas.Eviction),
    ...declareFailures(
      ...bodyFailures,
      ...alwaysPossible,
      "model-not-found",
      "not-ready",
      "shutting-down",
      "out-of-shared-memory",
    ),
  },
});

export function defineEvictionRoute(app: OpenAPIHono<Environment>, { store }: Services): void {
  defineBodyRoute(app, request, async (c) => {
    c.env?.keepOpen?.();
    store.refuseIfStopping();
    const { bytes, model: name, pool: poolName = hostPool, dry_run: dryRun = false } = c.req.valid("json");
    checkModel(c.get("caller"), name);
    const model = name === undefined ? undefined : store.books.model(name);
    const { evicted, kept, freedBytes, isEnough } = await evict(store, { bytes, model, poolName, dryRun }, actorOf(c));
    return answer(
      c,
      {
        dry_run: dryRun,
        enough: isEnough,
        freed_bytes: freedBytes,
        evicted: evicted.map(({ region, name }) => ({
          ...toItem(region),
          name,
          last_used_at: new Date(region.lastUsedAt).toISOString(),
        })),
        kept: kept.map(({ region, reason }) => ({ ...toItem(region), reason })),
      },
      200,
    );
  });
}

function toItem(region: Region) {
  return { region: idOf(region), model: region.model, name: region.name, bytes: region.chargedBytes };
}
