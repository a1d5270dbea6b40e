/** Routes of regions: allocate, find, change, seal, verify, delete. */

import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { idOf, states } from "../memory/journal/region-record.ts";
import { limits } from "../memory/limits.ts";
import { changeRegion } from "../memory/regions/change.ts";
import { createRegion } from "../memory/regions/create.ts";
import { deleteRegion } from "../memory/regions/delete.ts";
import { findRegion, findRegionByName, listRegions } from "../memory/regions/find.ts";
import { sealRegion, verifyRegion } from "../memory/regions/seal.ts";
import { answerJson, toRegionBody, toRegionDetailBody } from "./descriptor-body.ts";
import type { Environment, Services } from "./environment.ts";
import { IfMatchHeader, PreferHeader, parseIfMatch, parseWaitMs } from "./headers.ts";
import { alwaysPossible, bodyFailures, declareFailures } from "./problem.ts";
import { parseLabel, toCreateRequest, toOwner } from "./region-request.ts";
import { requireBody } from "./require-body.ts";
import * as schemas from "./schemas.ts";
import { SessionId } from "./schemas-session.ts";
import { toRegionFacts } from "./to-wire.ts";

const RegionParameters = z.object({ region: schemas.RegionIdParameter });
const tags = ["regions"];

/** The query's `limit`: a string on the wire, an integer in the document. */
export const Limit = z
  .string()
  .regex(/^[1-9]\d{0,3}$/, `want 1 to ${limits.listItems}`)
  .refine((text) => Number(text) <= limits.listItems, `want 1 to ${limits.listItems}`)
  .optional()
  .openapi({ type: "integer", minimum: 1, maximum: limits.listItems, default: limits.listItemsDefault });

export function json<Schema extends z.ZodType>(description: string, schema: Schema) {
  return { description, content: { "application/json": { schema } } };
}

export function body<Schema extends z.ZodType>(schema: Schema) {
  return { required: true, content: { "application/json": { schema } } } as const;
}

const allocate = createRoute({
  operationId: "createRegion",
  middleware: [requireBody] as const,
  method: "post",
  path: "/v1/regions",
  tags,
  summary: "Allocate a region",
  request: { body: body(schemas.CreateRegion) },
  responses: {
    201: json("Allocated; map it at storage.path.", schemas.Region),
    200: json("It existed and `if_exists` is `attach`.", schemas.Region),
    ...declareFailures(
      ...bodyFailures,
      ...alwaysPossible,
      "model-not-found",
      "session-not-found",
      "claim-not-found",
      "name-taken",
      "name-claimed",
      "cancelled",
      "storage-unavailable",
      "shutting-down",
      "owner-required",
      "io-error",
      "too-many-requests",
      "deadline-exceeded",
      "session-quota-exceeded",
      "model-limit-exceeded",
      "pool-full",
      "out-of-shared-memory",
      "out-of-inodes",
    ),
  },
});

const list = createRoute({
  operationId: "listRegions",
  method: "get",
  path: "/v1/regions",
  tags,
  summary: "List regions in the order of their creation",
  request: {
    query: z.object({
      model: schemas.ModelName.optional(),
      name: schemas.RegionName.optional(),
      version: schemas.Version.optional().openapi({ description: "Only this version of the name." }),
      session: SessionId.optional().openapi({
        description: "Only regions that end with this session: its own, and what it builds under a claim.",
      }),
      state: z.enum(states).optional(),
      label: z.string().max(512).optional().openapi({ description: "key=value", example: "job=nightly" }),
      limit: Limit,
      cursor: z.string().max(32).optional(),
    }),
  },
  responses: {
    200: json("One page; it may be short and still have a next one.", schemas.RegionList),
    ...declareFailures(...alwaysPossible, "model-not-found", "session-not-found"),
  },
});

const get = createRoute({
  operationId: "getRegion",
  method: "get",
  path: "/v1/regions/{region}",
  tags,
  summary: "A region's descriptor, and who maps it",
  request: { params: RegionParameters },
  responses: {
    200: json("The descriptor.", schemas.RegionDetail),
    ...declareFailures(...alwaysPossible, "region-not-found"),
  },
});

const getByName = createRoute({
  operationId: "getRegionByName",
  method: "get",
  path: "/v1/models/{model}/regions/{name}",
  tags,
  summary: "Find a region by name, or wait until it is there and sealed",
  request: {
    params: z.object({ model: schemas.ModelName, name: schemas.RegionName }),
    query: z.object({ version: schemas.VersionParameter }),
    headers: PreferHeader,
  },
  responses: {
    200: json("The descriptor. After a wait that ended too early its state is not `sealed`.", schemas.RegionDetail),
    ...declareFailures(...alwaysPossible, "model-not-found", "region-not-found", "too-many-requests", "shutting-down"),
  },
});

const change = createRoute({
  operationId: "changeRegion",
  middleware: [requireBody] as const,
  method: "patch",
  path: "/v1/regions/{region}",
  tags,
  summary: "Change a region's owner or labels",
  request: { params: RegionParameters, headers: IfMatchHeader, body: body(schemas.ChangeRegion) },
  responses: {
    200: json("Changed.", schemas.Region),
    ...declareFailures(
      ...bodyFailures,
      ...alwaysPossible,
      "region-not-found",
      "region-busy",
      "region-draining",
      "revision-mismatch",
      "out-of-shared-memory",
    ),
  },
});

const seal = createRoute({
  operationId: "sealRegion",
  middleware: [requireBody] as const,
  method: "post",
  path: "/v1/regions/{region}/seal",
  tags,
  summary: "Make a region final",
  request: { params: RegionParameters, body: body(schemas.SealRegion) },
  responses: {
    200: json("Sealed.", schemas.Region),
    ...declareFailures(
      ...bodyFailures,
      ...alwaysPossible,
      "region-not-found",
      "region-sealed",
      "region-draining",
      "region-busy",
      "region-has-writers",
      "cancelled",
      "io-error",
      "shutting-down",
      "out-of-shared-memory",
    ),
  },
});

const verify = createRoute({
  operationId: "verifyRegion",
  method: "post",
  path: "/v1/regions/{region}/verify",
  tags,
  summary: "Recompute a sealed region's checksum and compare",
  request: { params: RegionParameters },
  responses: {
    200: json("What was found.", schemas.Verification),
    ...declareFailures(
      ...alwaysPossible,
      "payload-too-large",
      "unsupported-media-type",
      "region-not-found",
      "region-not-sealed",
      "region-busy",
      "region-draining",
      "cancelled",
      "io-error",
      "shutting-down",
    ),
  },
});

const remove = createRoute({
  operationId: "deleteRegion",
  method: "delete",
  path: "/v1/regions/{region}",
  tags,
  summary: "Delete a region: its name now, its bytes when nobody maps them",
  request: { params: RegionParameters },
  responses: {
    200: json("Deleted, or draining.", schemas.Deletion),
    ...declareFailures(
      ...alwaysPossible,
      "payload-too-large",
      "unsupported-media-type",
      "region-not-found",
      "out-of-shared-memory",
    ),
  },
});

export function defineRegionRoutes(app: OpenAPIHono<Environment>, { store }: Services): void {
  app.openapi(allocate, async (c) => {
    c.env?.keepOpen?.();
    const request = toCreateRequest(store, c.req.valid("json"));
    const { region, created } = await createRegion(store, request, c.get("signal"));
    c.header("Location", `/v1/regions/${idOf(region)}`);
    c.header("ETag", `"${region.revision}"`);
    return answerJson(c, toRegionBody(store, region), created ? 201 : 200);
  });

  app.openapi(list, (c) => {
    const { limit, cursor, label, ...filter } = c.req.valid("query");
    const count = limit === undefined ? limits.listItemsDefault : Number(limit);
    const page = listRegions(store, { ...filter, label: parseLabel(label) }, count, cursor);
    const items = page.regions.map((region) => toRegionFacts(store, region));
    return c.json({ items, next_cursor: page.nextCursor }, 200);
  });

  app.openapi(get, (c) => {
    const region = findRegion(store, c.req.valid("param").region);
    c.header("ETag", `"${region.revision}"`);
    return answerJson(c, toRegionDetailBody(store, region), 200);
  });

  app.openapi(getByName, async (c) => {
    const waitMs = parseWaitMs(c.req.valid("header").prefer);
    if (waitMs > 0) {
      c.env?.keepOpen?.();
      c.header("Preference-Applied", `wait=${waitMs / 1000}`);
    }
    const region = await findRegionByName(
      store,
      { ...c.req.valid("param"), ...c.req.valid("query") },
      waitMs,
      c.get("signal"),
    );
    c.header("ETag", `"${region.revision}"`);
    return answerJson(c, toRegionDetailBody(store, region), 200);
  });

  app.openapi(change, (c) => {
    const region = store.books.region(c.req.valid("param").region);
    const { labels, evictable, ...owners } = c.req.valid("json");
    const owner = Object.keys(owners).length === 0 ? undefined : toOwner(owners);
    const revision = parseIfMatch(c.req.valid("header")["if-match"]);
    changeRegion(store, region, { owner, labels, evictable }, revision);
    c.header("ETag", `"${region.revision}"`);
    return answerJson(c, toRegionBody(store, region), 200);
  });

  app.openapi(seal, async (c) => {
    c.env?.keepOpen?.();
    const region = store.books.region(c.req.valid("param").region);
    const { checksum = false, stock_writable: stockWritable = false } = c.req.valid("json");
    await sealRegion(store, region, { checksum, stockWritable }, c.get("requestId"));
    return answerJson(c, toRegionBody(store, region), 200);
  });

  app.openapi(verify, async (c) => {
    c.env?.keepOpen?.();
    const region = store.books.region(c.req.valid("param").region);
    const { expected, actual } = await verifyRegion(store, region);
    const ok = expected === null ? null : expected.value === actual.value;
    const { algorithm, value } = actual;
    return c.json({ ok, algorithm, expected: expected?.value ?? null, actual: value }, 200);
  });

  app.openapi(remove, async (c) => {
    c.env?.keepOpen?.();
    const region = store.books.region(c.req.valid("param").region);
    const { state, freedBytes } = await deleteRegion(store, region, "request", c.get("requestId"));
    return c.json({ state, freed_bytes: freedBytes }, 200);
  });
}
