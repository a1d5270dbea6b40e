/** Routes of groups: seal several regions in one turn, and get the descriptors of several in one turn. */

import { createRoute, type OpenAPIHono } from "@hono/zod-openapi";
import { TensordError } from "../memory/error.ts";
import { describe, idOf } from "../memory/journal/region-record.ts";
import { checkGroup, findGroup } from "../memory/regions/group.ts";
import { sealRegions } from "../memory/regions/seal.ts";
import { nextState } from "../memory/state/lifecycle.ts";
import { actorOf } from "./access/authorize.ts";
import { accessRegion, checkModel, checkRegionAccess, checkTakeover } from "./access/checks.ts";
import { answer, answerPieces, toRegionBody } from "./answer.ts";
import { preferenceApplied } from "./answer-headers.ts";
import { defineBodyRoute } from "./body-route.ts";
import { body, json } from "./contract.ts";
import type { Environment, Services } from "./environment.ts";
import { PreferHeader, parseWaitMs } from "./headers.ts";
import { alwaysPossible, bodyFailures, declareFailures } from "./problem.ts";
import * as schemas from "./schemas/group.ts";
import { sealFailures } from "./seal.ts";
import { toRegionFacts } from "./to-wire.ts";

const tags = ["regions"];

const seal = createRoute({
  operationId: "sealGroup",
  method: "post",
  path: "/v1/seal",
  tags,
  summary: "Make a group of regions final, all in one turn or none",
  description:
    "As `sealRegion`, of up to 1,000 regions of a model: their names change hands together, in one transaction, so " +
    "that whoever opens them with `openGroup` gets all that is new or all that was. If one is refused, which the " +
    "answer names, every one stays open.",
  request: { body: body(schemas.SealGroup) },
  responses: {
    200: json("All are sealed.", schemas.SealedGroup),
    ...declareFailures(...bodyFailures, ...alwaysPossible, ...sealFailures),
  },
});

const open = createRoute({
  operationId: "openGroup",
  method: "post",
  path: "/v1/open",
  tags,
  summary: "The descriptors of a group of regions, all as of one turn",
  description:
    "As `getRegionByName`, of up to 1,000 names of a model. With `Prefer: wait=N` the answer comes as soon as all are " +
    "there and sealed, or after N seconds. A client that maps them asks again, for all, if one is not there any more.",
  request: { headers: PreferHeader, body: body(schemas.OpenGroup) },
  responses: {
    200: json("All descriptors. After a wait that ended too early not every state is `sealed`.", schemas.OpenedGroup, {
      ...preferenceApplied,
    }),
    ...declareFailures(
      ...bodyFailures,
      ...alwaysPossible,
      "model-not-found",
      "region-not-found",
      "too-many-requests",
      "shutting-down",
    ),
  },
});

export function defineGroupRoutes(app: OpenAPIHono<Environment>, { store }: Services): void {
  defineBodyRoute(app, seal, async (c) => {
    c.env?.keepOpen?.();
    const { regions: members, checksum = false, stock_writable: stockWritable = false } = c.req.valid("json");
    const regions = members.map(({ region }) => accessRegion(c.get("caller"), "sealGroup", store, region));
    for (const region of regions) checkTakeover(c.get("caller"), region);
    checkGroup(regions);
    // A condition counts where the request would succeed without it.
    for (const region of regions) nextState(region, "seal");
    for (const [index, region] of regions.entries()) {
      const wanted = members[index]?.revision;
      if (wanted === undefined || wanted === region.revision) continue;
      throw new TensordError(
        "revision-mismatch",
        `Cannot seal ${describe(region)}: its revision is ${region.revision}, want ${wanted}`,
        { region: idOf(region), hint: "Somebody changed it meanwhile. Read it again, and decide anew." },
      );
    }
    await sealRegions(store, regions, { checksum, stockWritable }, actorOf(c));
    return answer(c, { items: regions.map((region) => toRegionFacts(store, region)) }, 200);
  });

  defineBodyRoute(app, open, async (c) => {
    const { model = "default", names, version } = c.req.valid("json");
    checkModel(c.get("caller"), model);
    const waitMs = parseWaitMs(c.req.valid("header").prefer);
    if (waitMs > 0) {
      c.env?.keepOpen?.();
      c.header("Preference-Applied", `wait=${waitMs / 1000}`);
    }
    const regions = await findGroup(store, { model, names, version }, waitMs, c.get("signal"));
    for (const region of regions) checkRegionAccess(c.get("caller"), "openGroup", region);
    const items = regions.flatMap((region, index) => [...(index === 0 ? [] : [","]), ...toRegionBody(store, region)]);
    return answerPieces(c, ['{"items":[', ...items, "]}"], 200);
  });
}
