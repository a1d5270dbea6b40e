/** Routes of leases by request, for readers that cannot hold a kernel lock. */

import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import {
  listRequestedLeases,
  releaseRequestedLease,
  renewRequestedLease,
  requestLease,
} from "../memory/regions/requested-lease.ts";
import { accessLease, accessRegion, accessSession } from "./access/checks.ts";
import { answer } from "./answer.ts";
import { location } from "./answer-headers.ts";
import { answerPage } from "./answer-page.ts";
import { defineBodyRoute } from "./body-route.ts";
import { body, json, KeyCursor, Limit } from "./contract.ts";
import type { Environment, Services } from "./environment.ts";
import { alwaysPossible, bodyFailures, declareFailures } from "./problem.ts";
import { idPattern, RegionIdParameter } from "./schemas/common.ts";
import * as requests from "./schemas/requests.ts";
import * as schemas from "./schemas/session.ts";
import { toLease } from "./to-wire.ts";

const LeaseParameters = z.object({ lease: z.string().max(64).openapi(idPattern("lea_")) });
const RegionParameters = z.object({ region: RegionIdParameter });
const tags = ["leases"];

const take = createRoute({
  operationId: "takeLease",
  method: "post",
  path: "/v1/regions/{region}/leases",
  tags,
  summary: "Keep a region from being freed, for a while",
  description:
    "A reader that maps the region holds a kernel lock and needs none. A lease by request ends by itself when it " +
    "is not renewed, or with the session that it names; while that is held, it need not be renewed.",
  request: { params: RegionParameters, body: body(requests.TakeLease) },
  responses: {
    201: json("Taken; renew it in time.", schemas.Lease, location),
    ...declareFailures(
      ...bodyFailures,
      ...alwaysPossible,
      "region-not-found",
      "session-not-found",
      "region-busy",
      "region-draining",
      "too-many-requests",
      "shutting-down",
      "out-of-shared-memory",
    ),
  },
});

const list = createRoute({
  operationId: "listLeases",
  method: "get",
  path: "/v1/regions/{region}/leases",
  tags,
  summary: "A region's leases by request; kernel locks are not among them",
  description:
    "Those that were taken with POST, in that order. Whether anybody maps the region is `in_use` of its descriptor.",
  request: { params: RegionParameters, query: z.object({ limit: Limit, cursor: KeyCursor }) },
  responses: {
    200: json("One page.", schemas.LeaseList),
    ...declareFailures(...alwaysPossible, "region-not-found"),
  },
});

const renew = createRoute({
  operationId: "renewLease",
  method: "post",
  path: "/v1/leases/{lease}/renew",
  tags,
  summary: "Begin the lease's TTL anew",
  description: "It then ends `ttl_ms` after now, unless it is renewed again.",
  request: { params: LeaseParameters },
  responses: {
    200: json("Renewed.", schemas.Lease),
    ...declareFailures(...alwaysPossible, "payload-too-large", "unsupported-media-type", "lease-not-found"),
  },
});

const end = createRoute({
  operationId: "endLease",
  method: "delete",
  path: "/v1/leases/{lease}",
  tags,
  summary: "Let go of a region",
  description: "If the region was draining and nobody else holds it, its memory is freed.",
  request: { params: LeaseParameters },
  responses: {
    200: json("Ended.", schemas.Ended),
    ...declareFailures(
      ...alwaysPossible,
      "payload-too-large",
      "unsupported-media-type",
      "lease-not-found",
      "out-of-shared-memory",
    ),
  },
});

export function defineLeaseRoutes(app: OpenAPIHono<Environment>, { store }: Services): void {
  defineBodyRoute(app, take, (c) => {
    const caller = c.get("caller");
    const region = accessRegion(caller, "takeLease", store, c.req.valid("param").region);
    const { ttl_ms, session: id } = c.req.valid("json");
    const session = id === undefined ? null : accessSession(caller, store, id);
    const lease = requestLease(store, region, session, ttl_ms, caller.name);
    c.header("Location", `/v1/leases/lea_${lease.token}`);
    return answer(c, toLease(lease), 201);
  });

  app.openapi(list, (c) => {
    const region = accessRegion(c.get("caller"), "listLeases", store, c.req.valid("param").region);
    const read = (count: number, after = "0") => listRequestedLeases(store, region, count, Number(after));
    return answerPage(c, c.req.valid("query"), read, toLease);
  });

  app.openapi(renew, (c) => {
    const lease = accessLease(c.get("caller"), "renewLease", store, c.req.valid("param").lease);
    renewRequestedLease(store, lease);
    return answer(c, toLease(lease), 200);
  });

  app.openapi(end, (c) => {
    releaseRequestedLease(store, accessLease(c.get("caller"), "endLease", store, c.req.valid("param").lease));
    return answer(c, { state: "deleted" } as const, 200);
  });
}
