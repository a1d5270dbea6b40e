/** Routes of an elastic pool's pages: map, unmap, trim, compact. */

import { createRoute, type OpenAPIHono } from "@hono/zod-openapi";
import { limits } from "../memory/limits.ts";
import { actorOf } from "./access/authorize.ts";
import { accessSession } from "./access/checks.ts";
import { answer } from "./answer.ts";
import { location, preferenceApplied } from "./answer-headers.ts";
import { defineBodyRoute } from "./body-route.ts";
import { body, json } from "./contract.ts";
import { accessPool, PoolParameters, poolFailures, poolPath, poolTags, strayBodyFailures } from "./elastic-pools.ts";
import { toCompaction, toRun } from "./elastic-wire.ts";
import type { Environment, Services } from "./environment.ts";
import { PreferHeader } from "./headers.ts";
import { answerBegun } from "./operations.ts";
import { alwaysPossible, bodyFailures, declareFailures } from "./problem.ts";
import * as schemas from "./schemas/elastic-pool.ts";
import { Operation } from "./schemas/operation.ts";

const map = createRoute({
  operationId: "mapPages",
  method: "post",
  path: `${poolPath}/map`,
  tags: poolTags,
  summary: "Map pages: all that are asked for, or none",
  description:
    "At `byte_offset`, or into the first hole that fits. The pages are there, and told as `tensord.vmm.mapped`, when the answer comes; " +
    "their bytes are whatever they are.",
  request: { params: PoolParameters, body: body(schemas.MapPages) },
  responses: {
    200: json("Mapped.", schemas.MappedPages),
    ...declareFailures(
      ...bodyFailures,
      ...alwaysPossible,
      ...poolFailures,
      "out-of-range",
      "already-mapped",
      "session-not-found",
      "storage-unavailable",
      "io-error",
      "not-ready",
      "model-limit-exceeded",
      "pool-full",
      "out-of-device-memory",
      "out-of-shared-memory",
      "deadline-exceeded",
      "shutting-down",
    ),
  },
});

const unmap = createRoute({
  operationId: "unmapPages",
  method: "post",
  path: `${poolPath}/unmap`,
  tags: poolTags,
  summary: "Unmap pages, as soon as every worker has let go of them",
  description:
    "Announced as `tensord.vmm.unmapped`, and an operation that goes on until the memory is given back: no page is taken from under a " +
    "worker that uses it. Cancelling it maps the pages again, until the first is given back.",
  request: { params: PoolParameters, headers: PreferHeader, body: body(schemas.UnmapPages) },
  responses: {
    202: json("Announced; ask for it until it has ended.", Operation, { ...location, ...preferenceApplied }),
    200: json("Unmapped, within the wait.", Operation, { ...location, ...preferenceApplied }),
    ...declareFailures(
      ...bodyFailures,
      ...alwaysPossible,
      ...poolFailures,
      "out-of-range",
      "not-mapped",
      "shutting-down",
    ),
  },
});

const trim = createRoute({
  operationId: "trimPool",
  method: "post",
  path: `${poolPath}/trim`,
  tags: poolTags,
  summary: "Give back the pages that no worker has taken",
  description: "Whatever a worker uses stays.",
  request: { params: PoolParameters },
  responses: {
    200: json("What was given back.", schemas.Trim),
    ...declareFailures(
      ...alwaysPossible,
      ...strayBodyFailures,
      ...poolFailures,
      "out-of-shared-memory",
      "shutting-down",
    ),
  },
});

const compact = createRoute({
  operationId: "compactPool",
  method: "post",
  path: `${poolPath}/compact`,
  tags: poolTags,
  summary: "Close the holes between pages",
  description:
    "Every run moves to the lowest offset that is free, whole and in its order, with the bytes that it has: workers map the same pages " +
    "elsewhere. Told as `tensord.vmm.moved`. Refused while a worker is attached that did not agree to moves, and while pages leave.",
  request: { params: PoolParameters },
  responses: {
    200: json("What moved; nothing, if there was no hole.", schemas.Compaction),
    ...declareFailures(
      ...alwaysPossible,
      ...strayBodyFailures,
      ...poolFailures,
      "in-use",
      "out-of-shared-memory",
      "shutting-down",
    ),
  },
});

export function defineElasticPageRoutes(app: OpenAPIHono<Environment>, { store }: Services): void {
  defineBodyRoute(app, map, async (c) => {
    const caller = c.get("caller");
    const pool = accessPool(caller, store, c.req.valid("param"));
    store.refuseIfStopping();
    const asked = c.req.valid("json");
    const session = asked.session === undefined ? null : accessSession(caller, store, asked.session);
    c.env?.keepOpen?.();
    const { run, sequence } = await store.elastic.map(
      pool,
      {
        byteSize: asked.byte_size,
        byteOffset: asked.byte_offset,
        session,
        evictable: asked.evictable ?? false,
        onFull: asked.on_full ?? "fail",
        deadlineMs: asked.deadline_ms ?? limits.deadlineDefaultMs,
        actor: actorOf(c),
      },
      c.get("signal"),
    );
    return answer(c, { run: toRun(run), sequence: String(sequence) }, 200);
  });

  defineBodyRoute(app, unmap, async (c) => {
    const caller = c.get("caller");
    const pool = accessPool(caller, store, c.req.valid("param"));
    const { byte_offset: byteOffset, byte_size: byteSize } = c.req.valid("json");
    const asked = { byteOffset, byteSize, createdBy: caller.name, actor: actorOf(c) };
    const operation = store.elastic.unmap(pool, asked);
    return await answerBegun(c, store, operation, c.req.valid("header").prefer);
  });

  app.openapi(trim, async (c) => {
    const pool = accessPool(c.get("caller"), store, c.req.valid("param"));
    store.refuseIfStopping();
    c.env?.keepOpen?.();
    const { freedBytes, sequence } = await store.elastic.trim(pool, actorOf(c));
    return answer(c, { freed_bytes: freedBytes, sequence: String(sequence) }, 200);
  });

  app.openapi(compact, (c) => {
    const pool = accessPool(c.get("caller"), store, c.req.valid("param"));
    store.refuseIfStopping();
    return answer(c, toCompaction(store.elastic.compact(pool)), 200);
  });
}
