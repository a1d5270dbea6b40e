/** Routes of claims: one of N workers becomes the builder of a name, the others wait for the sealed region. */

import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { claimName, releaseClaim } from "../memory/regions/claim.ts";
import { accessClaim, accessSession, checkModel, checkReplacement } from "./access/checks.ts";
import { answer, answerPieces, toRegionDetailBody } from "./answer.ts";
import { preferenceApplied } from "./answer-headers.ts";
import { defineBodyRoute } from "./body-route.ts";
import { body, json } from "./contract.ts";
import type { Environment, Services } from "./environment.ts";
import { PreferHeader, parseWaitMs } from "./headers.ts";
import { alwaysPossible, bodyFailures, declareFailures } from "./problem.ts";
import { idPattern, ModelName, RegionName, VersionParameter } from "./schemas/common.ts";
import * as requests from "./schemas/requests.ts";
import * as schemas from "./schemas/session.ts";

const params = z.object({ model: ModelName, name: RegionName });
const path = "/v1/models/{model}/regions/{name}/claim";
const tags = ["regions"];

const claim = createRoute({
  operationId: "claimName",
  method: "post",
  path,
  tags,
  summary: "Become the builder of a name, or get the sealed region",
  description:
    "Of those who ask for a name that is not there one becomes the builder, which creates the region with `claim` " +
    "and seals it; the others wait, with `Prefer: wait=N`, and get it. If the builder's session ends first, the " +
    "next in line builds. With `rebuild` a sealed region is built anew: it stands, and who asks without gets it, until " +
    "the new one takes its name over at its seal.",
  request: { params, headers: PreferHeader, body: body(requests.ClaimRequest) },
  responses: {
    200: json(
      "Your role. With Prefer: wait it comes when it is your turn, or the region is sealed.",
      schemas.Claim,
      preferenceApplied,
    ),
    ...declareFailures(
      ...bodyFailures,
      ...alwaysPossible,
      "model-not-found",
      "session-not-found",
      "too-many-requests",
      "shutting-down",
      "out-of-shared-memory",
    ),
  },
});

const release = createRoute({
  operationId: "releaseClaim",
  method: "delete",
  path,
  tags,
  summary: "Give the right to build up: the next in line builds",
  description: "For a builder that will not build after all: whoever waits for the name builds in its place.",
  request: {
    params,
    query: z.object({
      claim: z.string().max(64).openapi(idPattern("clm_")),
      version: VersionParameter,
    }),
  },
  responses: {
    200: json("Released.", schemas.Ended),
    ...declareFailures(
      ...alwaysPossible,
      "payload-too-large",
      "unsupported-media-type",
      "claim-not-found",
      "out-of-shared-memory",
    ),
  },
});

const readerHead = '{"role":"reader","claim":null,"region":';

export function defineClaimRoutes(app: OpenAPIHono<Environment>, { store }: Services): void {
  defineBodyRoute(app, claim, async (c) => {
    const { session: id, key = null, version, rebuild } = c.req.valid("json");
    const caller = c.get("caller");
    checkModel(caller, c.req.valid("param").model);
    const session = accessSession(caller, store, id);
    if (rebuild !== undefined) checkReplacement(caller, store.books.regionById(rebuild));
    const waitMs = parseWaitMs(c.req.valid("header").prefer);
    if (waitMs > 0) {
      c.env?.stay?.("wait");
      c.env?.keepOpen?.();
      c.header("Preference-Applied", `wait=${waitMs / 1000}`);
    }
    const request = { ...c.req.valid("param"), version, session, key, rebuild };
    const turn = await claimName(store, request, waitMs, c.get("signal"));
    if (turn.role === "builder") {
      return answer(c, { role: turn.role, claim: `clm_${turn.claim.token}`, region: null }, 200);
    }
    if (turn.region === undefined) return answer(c, { role: turn.role, claim: null, region: null }, 200);
    return answerPieces(c, [readerHead, ...toRegionDetailBody(store, turn.region), "}"], 200);
  });

  app.openapi(release, (c) => {
    const { claim: id, version = "" } = c.req.valid("query");
    const caller = c.get("caller");
    checkModel(caller, c.req.valid("param").model);
    releaseClaim(store, accessClaim(caller, store, { ...c.req.valid("param"), version }, id));
    return answer(c, { state: "deleted" } as const, 200);
  });
}
