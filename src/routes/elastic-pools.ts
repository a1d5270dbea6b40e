/** Routes of elastic pools: make one, read its map, change its limits, delete it. What is done to its pages is `elastic-pages.ts`'s. */

import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { limits } from "../memory/limits.ts";
import type { ElasticPool, PoolRange } from "../memory/state/elastic.ts";
import type { Store } from "../memory/state/store.ts";
import { actorOf } from "./access/authorize.ts";
import type { Caller } from "./access/caller.ts";
import { checkModel } from "./access/checks.ts";
import { mayUse } from "./access/rights.ts";
import { answer } from "./answer.ts";
import { etag, location } from "./answer-headers.ts";
import { answerPage } from "./answer-page.ts";
import { defineBodyRoute } from "./body-route.ts";
import { body, json, KeyCursor, Limit } from "./contract.ts";
import { toElasticPool, toElasticPoolDetail } from "./elastic-wire.ts";
import type { Environment, Services } from "./environment.ts";
import { ChangeConditions, checkConditions, setTag, toTaggedPool } from "./preconditions.ts";
import { alwaysPossible, bodyFailures, declareFailures } from "./problem.ts";
import { ModelName } from "./schemas/common.ts";
import { DeviceUuid } from "./schemas/device.ts";
import * as schemas from "./schemas/elastic-pool.ts";

export const PoolParameters = z.object({ model: ModelName, device_uuid: DeviceUuid });
export const poolPath = "/v1/models/{model}/vmm/{device_uuid}";
export const poolTags = ["elastic-pools"];
/** Of every route about one. */
export const poolFailures = ["model-not-found", "vmm-pool-not-found"] as const;
/** What a body of none may be refused for, if there is one all the same. */
export const strayBodyFailures = ["payload-too-large", "unsupported-media-type"] as const;
const byteCount = z.string().regex(/^\d{1,16}$/, "want a number of bytes");

const create = createRoute({
  operationId: "createElasticPool",
  method: "put",
  path: poolPath,
  tags: poolTags,
  summary: "Make a model's elastic pool on a device",
  description:
    "A range of bytes in which pages come and go, as they are mapped and unmapped. Every worker that is attached reserves as much of its " +
    "own addresses; offsets are what they share. No page is mapped yet, and nothing is taken but `minimum_bytes`. With the values of a " +
    "pool that is there the answer is that pool.",
  request: { params: PoolParameters, body: body(schemas.CreateElasticPool) },
  responses: {
    201: json("Made.", schemas.ElasticPoolDetail, { ...location, ...etag }),
    200: json("It was there, with these values.", schemas.ElasticPoolDetail, { ...location, ...etag }),
    ...declareFailures(
      ...bodyFailures,
      ...alwaysPossible,
      "model-not-found",
      "device-not-found",
      "vmm-pool-exists",
      "invalid-page-size",
      "out-of-range",
      "storage-unavailable",
      "not-ready",
      "shutting-down",
      "model-limit-exceeded",
      "pool-full",
      "out-of-shared-memory",
    ),
  },
});

const list = createRoute({
  operationId: "listElasticPools",
  method: "get",
  path: "/v1/vmm",
  tags: poolTags,
  summary: "List elastic pools in the order in which they were made",
  description: "Each with its sums, and without its pages.",
  request: { query: z.object({ model: ModelName.optional(), limit: Limit, cursor: KeyCursor }) },
  responses: { 200: json("One page.", schemas.ElasticPoolList), ...declareFailures(...alwaysPossible) },
});

const get = createRoute({
  operationId: "getElasticPool",
  method: "get",
  path: poolPath,
  tags: poolTags,
  summary: "An elastic pool: its pages, its holes, its workers",
  description:
    "What is mapped and what leaves, what is owed to the device, and who is attached and has followed how far. With `byte_offset` and " +
    "`byte_size` also whether all of that range is mapped.",
  request: {
    params: PoolParameters,
    query: z.object({
      byte_offset: byteCount.optional().openapi(toInteger("Where a range begins, in whole pages. Default: 0.")),
      byte_size: byteCount.optional().openapi(toInteger("How long it is, in whole pages. Default: to the end.")),
    }),
  },
  responses: {
    200: json("As of now.", schemas.ElasticPoolDetail, etag),
    ...declareFailures(...alwaysPossible, ...poolFailures, "out-of-range"),
  },
});

const change = createRoute({
  operationId: "changeElasticPool",
  method: "patch",
  path: poolPath,
  tags: poolTags,
  summary: "Change the limits of an elastic pool, at once",
  description:
    "A maximum below what is mapped takes nothing away: it refuses what is mapped from then on. With `If-Match` only the revision that you " +
    "know is changed.",
  request: { params: PoolParameters, headers: ChangeConditions, body: body(schemas.ChangeElasticPool) },
  responses: {
    200: json("Changed.", schemas.ElasticPoolDetail, etag),
    ...declareFailures(
      ...bodyFailures,
      ...alwaysPossible,
      ...poolFailures,
      "out-of-range",
      "revision-mismatch",
      "model-limit-exceeded",
      "pool-full",
      "out-of-shared-memory",
    ),
  },
});

const remove = createRoute({
  operationId: "deleteElasticPool",
  method: "delete",
  path: poolPath,
  tags: poolTags,
  summary: "Delete an elastic pool, and all of its pages",
  description: "Refused while a worker is attached: it may be using them.",
  request: { params: PoolParameters, headers: ChangeConditions },
  responses: {
    200: json("Deleted.", schemas.PoolDeletion),
    ...declareFailures(
      ...alwaysPossible,
      ...strayBodyFailures,
      ...poolFailures,
      "in-use",
      "revision-mismatch",
      "out-of-shared-memory",
    ),
  },
});

/** The pool that a request's path names, for who may use its model. @throws TensordError `forbidden`, `model-not-found`, `vmm-pool-not-found`. */
export function accessPool(
  caller: Caller,
  { elastic }: Store,
  { model, device_uuid: deviceUuid }: z.infer<typeof PoolParameters>,
): ElasticPool {
  checkModel(caller, model);
  return elastic.find(model, deviceUuid);
}

export function defineElasticPoolRoutes(app: OpenAPIHono<Environment>, { store }: Services): void {
  defineBodyRoute(app, create, async (c) => {
    c.env?.keepOpen?.();
    const { model, device_uuid: deviceUuid } = c.req.valid("param");
    const caller = c.get("caller");
    checkModel(caller, model);
    store.refuseIfStopping();
    const {
      virtual_capacity: virtualCapacity,
      page_size: pageSize = limits.elasticPageBytesDefault,
      minimum_bytes: minimumBytes = 0,
      maximum_bytes: maximumBytes = null,
    } = c.req.valid("json");
    const asked = { model, deviceUuid, virtualCapacity, pageSize, minimumBytes, maximumBytes };
    const { pool, isNew } = await store.elastic.create({ ...asked, createdBy: caller.name });
    c.header("Location", `/v1/models/${model}/vmm/${deviceUuid}`);
    setTag(c, toTaggedPool(pool));
    return answer(c, toElasticPoolDetail(pool, store.elastic.describe(pool)), isNew ? 201 : 200);
  });

  app.openapi(list, (c) => {
    const { model, limit, cursor } = c.req.valid("query");
    const caller = c.get("caller");
    if (model !== undefined) checkModel(caller, model);
    const sees = ({ model: { name } }: ElasticPool) => mayUse(caller, name) && (model === undefined || name === model);
    const read = (count: number, after = "0") => readPage(store.elastic.after(Number(after)), count, sees);
    return answerPage(c, { limit, cursor }, read, (pool) => toElasticPool(pool, store.elastic.figures(pool)));
  });

  app.openapi(get, (c) => {
    const pool = accessPool(c.get("caller"), store, c.req.valid("param"));
    setTag(c, toTaggedPool(pool));
    const range = toRange(pool, c.req.valid("query"));
    return answer(c, toElasticPoolDetail(pool, store.elastic.describe(pool, range)), 200);
  });

  defineBodyRoute(app, change, (c) => {
    const pool = accessPool(c.get("caller"), store, c.req.valid("param"));
    checkConditions(c, "change", toTaggedPool(pool));
    const { minimum_bytes: minimumBytes, maximum_bytes: maximumBytes } = c.req.valid("json");
    store.elastic.change(pool, { minimumBytes, maximumBytes });
    setTag(c, toTaggedPool(pool));
    return answer(c, toElasticPoolDetail(pool, store.elastic.describe(pool)), 200);
  });

  app.openapi(remove, async (c) => {
    c.env?.keepOpen?.();
    const pool = accessPool(c.get("caller"), store, c.req.valid("param"));
    checkConditions(c, "delete", toTaggedPool(pool));
    const { freedBytes } = await store.elastic.remove(pool, actorOf(c));
    return answer(c, { state: "deleted" as const, freed_bytes: freedBytes }, 200);
  });
}

/** The first `count` of them that are seen. */
function readPage(pools: Iterable<ElasticPool>, count: number, sees: (pool: ElasticPool) => boolean) {
  const items: ElasticPool[] = [];
  for (const pool of pools) {
    if (!sees(pool)) continue;
    if (items.length === count) return { items, nextCursor: String(items.at(-1)?.key) };
    items.push(pool);
  }
  return { items, nextCursor: null };
}

/** What half a range leaves out is the range's beginning, or its end. */
function toRange(
  { virtualCapacity }: ElasticPool,
  asked: { readonly byte_offset?: string | undefined; readonly byte_size?: string | undefined },
): PoolRange | undefined {
  if (asked.byte_offset === undefined && asked.byte_size === undefined) return undefined;
  const byteOffset = Number(asked.byte_offset ?? 0);
  return { byteOffset, byteSize: Number(asked.byte_size ?? Math.max(0, virtualCapacity - byteOffset)) };
}

function toInteger(description: string) {
  return { description, type: "integer" as const, minimum: 0, maximum: limits.regionBytes };
}
