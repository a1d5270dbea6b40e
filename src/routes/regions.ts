/** Routes of the collection of regions: allocate one, list them. */

import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { idOf, states } from "../memory/journal/region-record.ts";
import { createRegion } from "../memory/regions/create.ts";
import { listRegions } from "../memory/regions/list.ts";
import { actorOf } from "./access/authorize.ts";
import { accessSession, checkCreation, checkModel } from "./access/checks.ts";
import { answerPieces, toRegionBody } from "./answer.ts";
import { etag, location } from "./answer-headers.ts";
import { answerPage } from "./answer-page.ts";
import { defineBodyRoute } from "./body-route.ts";
import { body, json, Limit } from "./contract.ts";
import type { Environment, Services } from "./environment.ts";
import { setTag, toTaggedRegion } from "./preconditions.ts";
import { alwaysPossible, bodyFailures, declareFailures } from "./problem.ts";
import { parseLabel, toCreateRequest } from "./region-request.ts";
import { cursorPattern, ModelName, RegionName, SessionId, Version } from "./schemas/common.ts";
import * as schemas from "./schemas/region.ts";
import * as requests from "./schemas/requests.ts";
import { toRegionFacts } from "./to-wire.ts";

const tags = ["regions"];

const allocate = createRoute({
  operationId: "createRegion",
  method: "post",
  path: "/v1/regions",
  tags,
  summary: "Allocate a region",
  description:
    "Lays the tensors out in a new file of zeros, charged to the pools before it is there. Write it by mapping " +
    "it, then seal it. Exactly one owner decides its end. In `cuda_vmm` storage it is memory of a device, from its first byte on " +
    "and of whatever bytes the driver leaves there; it is mapped by the descriptor that the broker sends. Read-only on a device is an " +
    "agreement between clients: nothing keeps a process that has the descriptor from writing to a sealed region.",
  request: { body: body(requests.CreateRegion) },
  responses: {
    201: json("Allocated; map it at storage.path.", schemas.Region, { ...location, ...etag }),
    200: json("It existed and `if_exists` is `attach`.", schemas.Region, { ...location, ...etag }),
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
      "not-ready",
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
      "out-of-device-memory",
    ),
  },
});

const list = createRoute({
  operationId: "listRegions",
  method: "get",
  path: "/v1/regions",
  tags,
  summary: "List regions in the order of their creation",
  description:
    "Filters count together. Items have `tensor_count` in place of `tensors`; ask for one region to see them.",
  request: {
    query: z.object({
      model: ModelName.optional(),
      name: RegionName.optional(),
      version: Version.optional().openapi({ description: "Only this version of the name." }),
      session: SessionId.optional().openapi({
        description: "Only regions that end with this session: its own, and what it builds under a claim.",
      }),
      state: z.enum(states).optional(),
      label: z.string().max(512).optional().openapi({ description: "key=value", example: "job=nightly" }),
      limit: Limit,
      cursor: z.string().max(32).optional().openapi(cursorPattern),
    }),
  },
  responses: {
    200: json("One page; it may be short and still have a next one.", schemas.RegionList),
    ...declareFailures(...alwaysPossible, "model-not-found", "session-not-found"),
  },
});

export function defineRegionsRoutes(app: OpenAPIHono<Environment>, { store }: Services): void {
  defineBodyRoute(app, allocate, async (c) => {
    c.env?.keepOpen?.();
    const caller = c.get("caller");
    const body = c.req.valid("json");
    checkModel(caller, body.model ?? "default");
    const asked = toCreateRequest(store, body, c.get("tensors"));
    checkCreation(caller, store, asked, body.session);
    const request = { ...asked, createdBy: caller.name, actor: actorOf(c) };
    if (request.onFull === "wait") c.env?.stay?.("wait for memory");
    const { region, created } = await createRegion(store, request, c.get("signal"));
    c.header("Location", `/v1/regions/${idOf(region)}`);
    setTag(c, toTaggedRegion(region));
    return answerPieces(c, toRegionBody(store, region), created ? 201 : 200);
  });

  app.openapi(list, (c) => {
    const { limit, cursor, label, ...rest } = c.req.valid("query");
    const caller = c.get("caller");
    if (rest.model !== undefined) checkModel(caller, rest.model);
    if (rest.session !== undefined) accessSession(caller, store, rest.session);
    const filter = { ...rest, label: parseLabel(label), models: caller.models };
    return answerPage(
      c,
      { limit, cursor },
      (count, after) => listRegions(store, filter, count, after),
      (region) => toRegionFacts(store, region),
    );
  });
}
