/** Routes of what is final about a region: seal it, verify what was sealed. */

import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { sealRegions, verifyRegion } from "../memory/regions/seal.ts";
import { actorOf } from "./access/authorize.ts";
import { accessRegion, checkTakeover } from "./access/checks.ts";
import { answer, answerPieces, toRegionBody } from "./answer.ts";
import { etag } from "./answer-headers.ts";
import { defineBodyRoute } from "./body-route.ts";
import { json, optionalBody } from "./contract.ts";
import type { Environment, Services } from "./environment.ts";
import { ChangeConditions, checkRegion, setTag, toTaggedRegion } from "./preconditions.ts";
import { alwaysPossible, bodyFailures, declareFailures } from "./problem.ts";
import { RegionIdParameter } from "./schemas/common.ts";
import * as schemas from "./schemas/region.ts";
import * as requests from "./schemas/requests.ts";

const RegionParameters = z.object({ region: RegionIdParameter });
const tags = ["regions"];

/** Of one region, and of each member of a group. */
export const sealFailures = [
  "region-not-found",
  "region-sealed",
  "region-draining",
  "region-busy",
  "region-has-writers",
  "revision-mismatch",
  "cancelled",
  "io-error",
  "shutting-down",
  "out-of-shared-memory",
  "out-of-device-memory",
  "deadline-exceeded",
] as const;

const seal = createRoute({
  operationId: "sealRegion",
  method: "post",
  path: "/v1/regions/{region}/seal",
  tags,
  summary: "Make a region final",
  description:
    "From then on nobody can map it for writing, and readers that wait for its name get it. Refused while " +
    "somebody maps it for writing.",
  request: { params: RegionParameters, headers: ChangeConditions, body: optionalBody(requests.SealRegion) },
  responses: {
    200: json("Sealed.", schemas.Region, etag),
    ...declareFailures(...bodyFailures, ...alwaysPossible, ...sealFailures),
  },
});

const verify = createRoute({
  operationId: "verifyRegion",
  method: "post",
  path: "/v1/regions/{region}/verify",
  tags,
  summary: "Recompute a sealed region's checksum and compare",
  description: "Reads all of its bytes. Without a recorded checksum it says what one would be.",
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
      "storage-unavailable",
      "io-error",
      "shutting-down",
      "out-of-device-memory",
      "deadline-exceeded",
    ),
  },
});

export function defineSealRoutes(app: OpenAPIHono<Environment>, { store }: Services): void {
  defineBodyRoute(app, seal, async (c) => {
    c.env?.keepOpen?.();
    const region = accessRegion(c.get("caller"), "sealRegion", store, c.req.valid("param").region);
    checkTakeover(c.get("caller"), region);
    checkRegion(c, region, "seal", toTaggedRegion(region));
    const { checksum = false, stock_writable: stockWritable = false } = c.req.valid("json");
    await sealRegions(store, [region], { checksum, stockWritable }, actorOf(c));
    setTag(c, toTaggedRegion(region));
    return answerPieces(c, toRegionBody(store, region), 200);
  });

  app.openapi(verify, async (c) => {
    c.env?.keepOpen?.();
    const region = accessRegion(c.get("caller"), "verifyRegion", store, c.req.valid("param").region);
    const { expected, actual } = await verifyRegion(store, region);
    const ok = expected === null ? null : expected.value === actual.value;
    const { algorithm, value } = actual;
    return answer(c, { ok, algorithm, expected: expected?.value ?? null, actual: value }, 200);
  });
}
