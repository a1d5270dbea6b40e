/** Routes of a region's pages: what is in memory of them, advice to the kernel, and what was written brought to a disk. */

import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { adviseRegion, flushRegion } from "../memory/regions/pages.ts";
import { accessRegion } from "./access/checks.ts";
import { answer } from "./answer.ts";
import { defineBodyRoute } from "./body-route.ts";
import { body, json } from "./contract.ts";
import type { Environment, Services } from "./environment.ts";
import { alwaysPossible, bodyFailures, declareFailures } from "./problem.ts";
import { RegionIdParameter } from "./schemas/common.ts";
import * as schemas from "./schemas/pages.ts";

const params = z.object({ region: RegionIdParameter });
const tags = ["regions"];
const failures = ["region-not-found", "region-busy", "region-draining", "storage-unavailable", "io-error"] as const;

const advise = createRoute({
  operationId: "adviseRegion",
  method: "post",
  path: "/v1/regions/{region}/advise",
  tags,
  summary: "Have the kernel read a region's file ahead, or let go of its copy",
  description:
    "For regions that are files (`file` storage). Who copied one to a GPU lets go of the pages that it maps first, since the kernel " +
    "keeps what somebody maps; the answer says what was achieved.",
  request: { params, body: body(schemas.AdviseRegion) },
  responses: {
    200: json("What was in memory of it, and is.", schemas.Residency),
    ...declareFailures(...bodyFailures, ...alwaysPossible, ...failures),
  },
});

const flush = createRoute({
  operationId: "flushRegion",
  method: "post",
  path: "/v1/regions/{region}/flush",
  tags,
  summary: "Bring what was written to a region to the disk that its file is on",
  description:
    "Waits for that, where there is a disk. What a process writes is everybody's at once, without this; of regions in memory there is " +
    "nothing to bring anywhere.",
  request: { params },
  responses: {
    200: json("Done.", schemas.Flushed),
    ...declareFailures(...alwaysPossible, "payload-too-large", "unsupported-media-type", ...failures),
  },
});

export function definePageRoutes(app: OpenAPIHono<Environment>, { store }: Services): void {
  defineBodyRoute(app, advise, async (c) => {
    c.env?.keepOpen?.();
    const region = accessRegion(c.get("caller"), "adviseRegion", store, c.req.valid("param").region);
    const { before, after } = await adviseRegion(store, region, c.req.valid("json").advice);
    const resident = { resident_bytes_before: before, resident_bytes_after: after };
    return answer(c, { byte_size: region.byteSize, ...resident }, 200);
  });

  app.openapi(flush, async (c) => {
    c.env?.keepOpen?.();
    const region = accessRegion(c.get("caller"), "flushRegion", store, c.req.valid("param").region);
    return answer(c, { durable: await flushRegion(store, region) }, 200);
  });
}
