/** Routes of one region: find it by id or by name, change it, delete it. */

import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { changeRegion } from "../memory/regions/change.ts";
import { deleteRegion } from "../memory/regions/delete.ts";
import { findRegion, findRegionByName, type NamedRegion, regionByName } from "../memory/regions/find.ts";
import type { Region } from "../memory/state/region.ts";
import type { Store } from "../memory/state/store.ts";
import { actorOf } from "./access/authorize.ts";
import { accessRegion, checkModel, checkRegionAccess } from "./access/checks.ts";
import type { Operation } from "./access/rights.ts";
import { answer, answerPieces, toRegionBody, toRegionDetailBody } from "./answer.ts";
import { etag, preferenceApplied } from "./answer-headers.ts";
import { defineBodyRoute } from "./body-route.ts";
import { body, json } from "./contract.ts";
import type { Environment, Services } from "./environment.ts";
import { PreferHeader, parseIsFetch, parseWaitMs } from "./headers.ts";
import {
  ChangeConditions,
  checkRegion,
  isKnown,
  notModified,
  ReadConditions,
  setTag,
  type Tagged,
  toTaggedName,
  toTaggedRegion,
} from "./preconditions.ts";
import { alwaysPossible, bodyFailures, declareFailures } from "./problem.ts";
import { toOwner } from "./region-request.ts";
import { ModelName, RegionIdParameter, RegionName, VersionParameter } from "./schemas/common.ts";
import * as schemas from "./schemas/region.ts";
import * as requests from "./schemas/requests.ts";

const RegionParameters = z.object({ region: RegionIdParameter });
const named = {
  params: z.object({ model: ModelName, name: RegionName }),
  query: z.object({ version: VersionParameter }),
};
const pathByName = "/v1/models/{model}/regions/{name}";
const tags = ["regions"];

const get = createRoute({
  operationId: "getRegion",
  method: "get",
  path: "/v1/regions/{region}",
  tags,
  summary: "A region's descriptor, and who maps it",
  description:
    "Asks the kernel whether anybody maps it, so that `in_use` and `has_writers` are true of this moment. The " +
    "descriptor says where the file is, and where in it each tensor lies.",
  request: { params: RegionParameters, headers: ReadConditions },
  responses: {
    200: json("The descriptor.", schemas.RegionDetail, etag),
    ...notModified,
    ...declareFailures(...alwaysPossible, "region-not-found", "revision-mismatch"),
  },
});

const getByName = createRoute({
  operationId: "getRegionByName",
  method: "get",
  path: pathByName,
  tags,
  summary: "Find a region by name, or wait until it is there and sealed",
  description:
    "Without a version it is the newest sealed one. With `Prefer: wait=N` the answer comes as soon as the name is " +
    "there and sealed, or after N seconds.",
  request: { ...named, headers: PreferHeader.extend(ReadConditions.shape) },
  responses: {
    200: json("The descriptor. After a wait that ended too early its state is not `sealed`.", schemas.RegionDetail, {
      ...etag,
      ...preferenceApplied,
    }),
    ...notModified,
    ...declareFailures(
      ...alwaysPossible,
      "model-not-found",
      "region-not-found",
      "revision-mismatch",
      "too-many-requests",
      "shutting-down",
    ),
  },
});

const change = createRoute({
  operationId: "changeRegion",
  method: "patch",
  path: "/v1/regions/{region}",
  tags,
  summary: "Change a region's owner or labels",
  description:
    "What is left out stays; of labels, null takes one away. With `If-Match` only the revision that you know is " +
    "changed.",
  request: { params: RegionParameters, headers: ChangeConditions, body: body(requests.ChangeRegion) },
  responses: {
    200: json("Changed.", schemas.Region, etag),
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

// What drains has no name any more.
const changeByName = createRoute({
  operationId: "changeRegionByName",
  method: "patch",
  path: pathByName,
  tags,
  summary: "Change the owner or labels of the region that has a name",
  description: "As `changeRegion`, of the region that `getRegionByName` finds.",
  request: { ...named, headers: ChangeConditions, body: body(requests.ChangeRegion) },
  responses: {
    200: json("Changed.", schemas.Region, etag),
    ...declareFailures(
      ...bodyFailures,
      ...alwaysPossible,
      "model-not-found",
      "region-not-found",
      "region-busy",
      "revision-mismatch",
      "out-of-shared-memory",
    ),
  },
});

const remove = createRoute({
  operationId: "deleteRegion",
  method: "delete",
  path: "/v1/regions/{region}",
  tags,
  summary: "Delete a region: its name now, its bytes when nobody maps them",
  description:
    "Who maps it keeps what is mapped; the region drains until the last mapping is gone. One that is not sealed " +
    "is aborted.",
  request: { params: RegionParameters, headers: ChangeConditions },
  responses: {
    200: json("Deleted, or draining.", schemas.Deletion),
    ...declareFailures(
      ...alwaysPossible,
      "payload-too-large",
      "unsupported-media-type",
      "region-not-found",
      "revision-mismatch",
      "out-of-shared-memory",
    ),
  },
});

const removeByName = createRoute({
  operationId: "deleteRegionByName",
  method: "delete",
  path: pathByName,
  tags,
  summary: "Delete the region that has a name",
  description: "As `deleteRegion`, of the region that `getRegionByName` finds. The name is free at once.",
  request: { ...named, headers: ChangeConditions },
  responses: {
    200: json("Deleted, or draining.", schemas.Deletion),
    ...declareFailures(
      ...alwaysPossible,
      "payload-too-large",
      "unsupported-media-type",
      "model-not-found",
      "region-not-found",
      "revision-mismatch",
      "out-of-shared-memory",
    ),
  },
});

export function defineRegionRoutes(app: OpenAPIHono<Environment>, { store }: Services): void {
  app.openapi(get, (c) => {
    const { region: id } = c.req.valid("param");
    accessRegion(c.get("caller"), "getRegion", store, id);
    const region = findRegion(store, id);
    return answerDetail(c, store, region, toTaggedRegion(region));
  });

  app.openapi(getByName, async (c) => {
    const { prefer } = c.req.valid("header");
    checkModel(c.get("caller"), c.req.valid("param").model);
    const waitMs = parseWaitMs(prefer);
    if (waitMs > 0) {
      c.env?.stay?.("wait");
      c.env?.keepOpen?.();
      c.header("Preference-Applied", `wait=${waitMs / 1000}`);
    }
    const region = await findRegionByName(
      store,
      { ...c.req.valid("param"), ...c.req.valid("query") },
      { waitMs, isFetch: parseIsFetch(prefer) },
      c.get("signal"),
    );
    checkRegionAccess(c.get("caller"), "getRegionByName", region);
    return answerDetail(c, store, region, toTaggedName(region));
  });

  defineBodyRoute(app, change, (c) => {
    const region = accessRegion(c.get("caller"), "changeRegion", store, c.req.valid("param").region);
    checkRegion(c, region, "change", toTaggedRegion(region));
    return answerChange(c, store, region, c.req.valid("json"));
  });

  defineBodyRoute(app, changeByName, (c) => {
    const region = accessByName(c, "changeRegionByName", store, { ...c.req.valid("param"), ...c.req.valid("query") });
    checkRegion(c, region, "change", toTaggedName(region));
    return answerChange(c, store, region, c.req.valid("json"));
  });

  app.openapi(remove, (c) => {
    const region = accessRegion(c.get("caller"), "deleteRegion", store, c.req.valid("param").region);
    checkRegion(c, region, "delete", toTaggedRegion(region));
    return answerDeletion(c, store, region);
  });

  app.openapi(removeByName, (c) => {
    const region = accessByName(c, "deleteRegionByName", store, { ...c.req.valid("param"), ...c.req.valid("query") });
    checkRegion(c, region, "delete", toTaggedName(region));
    return answerDeletion(c, store, region);
  });
}

function accessByName(c: Context<Environment>, operation: Operation, store: Store, named: NamedRegion): Region {
  checkModel(c.get("caller"), named.model);
  const region = regionByName(store, named);
  checkRegionAccess(c.get("caller"), operation, region);
  return region;
}

function answerDetail(c: Context<Environment>, store: Store, region: Region, tagged: Tagged) {
  setTag(c, tagged);
  return isKnown(c, tagged) ? c.body(null, 304) : answerPieces(c, toRegionDetailBody(store, region), 200);
}

function answerChange(
  c: Context<Environment>,
  store: Store,
  region: Region,
  { labels, evictable, persist, ...others }: z.infer<typeof requests.ChangeRegion>,
) {
  const owners = persist === true ? { ...others, persist } : others;
  const owner = Object.keys(owners).length === 0 ? undefined : toOwner(owners);
  changeRegion(store, region, { owner, labels, evictable });
  setTag(c, toTaggedRegion(region));
  return answerPieces(c, toRegionBody(store, region), 200);
}

async function answerDeletion(c: Context<Environment>, store: Store, region: Region) {
  c.env?.keepOpen?.();
  const { state, freedBytes } = await deleteRegion(store, region, "request", actorOf(c));
  return answer(c, { state, freed_bytes: freedBytes }, 200);
}
