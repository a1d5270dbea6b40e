/** Routes of operations: copies begin, and whatever long work there is is listed, followed and cancelled. */

import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { startCopy } from "../memory/operations/copy.ts";
import { cancelOperation, listOperations, waitForOperation } from "../memory/operations/run.ts";
import { idOfOperation, type Operation, operationStates } from "../memory/state/operation.ts";
import type { Store } from "../memory/state/store.ts";
import { actorOf } from "./access/authorize.ts";
import { accessOperation, accessRegion, checkCreation, checkModel } from "./access/checks.ts";
import { mayUse } from "./access/rights.ts";
import { answerPieces } from "./answer.ts";
import { location, preferenceApplied } from "./answer-headers.ts";
import { answerPage } from "./answer-page.ts";
import { defineBodyRoute } from "./body-route.ts";
import { body, json, KeyCursor, Limit } from "./contract.ts";
import type { Environment, Services } from "./environment.ts";
import { PreferHeader, parseWaitMs } from "./headers.ts";
import { alwaysPossible, bodyFailures, declareFailures } from "./problem.ts";
import { toCopyTarget } from "./region-request.ts";
import { ModelName, RegionIdParameter } from "./schemas/common.ts";
import * as schemas from "./schemas/operation.ts";
import { toOperation } from "./to-wire.ts";

const OperationParameters = z.object({ operation: schemas.OperationIdParameter });
const path = "/v1/operations/{operation}";
const tags = ["operations"];

const copy = createRoute({
  operationId: "copyRegion",
  method: "post",
  path: "/v1/regions/{region}/copy",
  tags: ["regions"],
  summary: "Copy a sealed region into a new one, of any storage",
  description:
    "The server copies the bytes, reads them back, and commits the new region sealed, with a checksum: nobody sees one that is not " +
    "whole. It goes on whatever becomes of you, and keeps the source until it has ended. What it cannot do, its `problem` says; " +
    "nothing of the copy is left then.",
  request: {
    params: z.object({ region: RegionIdParameter }),
    headers: PreferHeader,
    body: body(schemas.CopyRegion),
  },
  responses: {
    202: json("Begun; ask for it until it has ended.", schemas.Operation, { ...location, ...preferenceApplied }),
    200: json("It has ended, within the wait or before.", schemas.Operation, { ...location, ...preferenceApplied }),
    ...declareFailures(
      ...bodyFailures,
      ...alwaysPossible,
      "region-not-found",
      "model-not-found",
      "session-not-found",
      "claim-not-found",
      "region-not-sealed",
      "region-busy",
      "region-draining",
      "storage-unavailable",
      "owner-required",
      "not-ready",
      "shutting-down",
    ),
  },
});

const list = createRoute({
  operationId: "listOperations",
  method: "get",
  path: "/v1/operations",
  tags,
  summary: "List operations in the order of their start",
  description: "Those that run, and those that have ended a while ago.",
  request: {
    query: z.object({
      model: ModelName.optional(),
      state: z.enum(operationStates).optional(),
      limit: Limit,
      cursor: KeyCursor,
    }),
  },
  responses: {
    200: json("One page.", schemas.OperationList),
    ...declareFailures(...alwaysPossible),
  },
});

const get = createRoute({
  operationId: "getOperation",
  method: "get",
  path,
  tags,
  summary: "How far an operation is, and what became of it",
  description: "With `Prefer: wait=N` the answer comes as soon as it has ended, or after N seconds.",
  request: { params: OperationParameters, headers: PreferHeader },
  responses: {
    200: json("As it is.", schemas.Operation, preferenceApplied),
    ...declareFailures(...alwaysPossible, "operation-not-found"),
  },
});

const cancel = createRoute({
  operationId: "cancelOperation",
  method: "delete",
  path,
  tags,
  summary: "Cancel an operation",
  description:
    "The answer comes when nothing of it goes on, and nothing of it is left. One that has ended stays as it ended.",
  request: { params: OperationParameters },
  responses: {
    200: json("As it ended.", schemas.Operation),
    ...declareFailures(...alwaysPossible, "payload-too-large", "unsupported-media-type", "operation-not-found"),
  },
});

export function defineOperationRoutes(app: OpenAPIHono<Environment>, { store }: Services): void {
  defineBodyRoute(app, copy, async (c) => {
    const caller = c.get("caller");
    const { key = null, ...body } = c.req.valid("json");
    const source = accessRegion(caller, "copyRegion", store, c.req.valid("param").region);
    checkModel(caller, body.model ?? "default");
    const target = toCopyTarget(store, body);
    checkCreation(caller, store, target, body.session);
    const operation = startCopy(store, source, { ...target, createdBy: caller.name, actor: actorOf(c) }, key);
    return await answerBegun(c, store, operation, c.req.valid("header").prefer);
  });

  app.openapi(list, (c) => {
    const { model, state, limit, cursor } = c.req.valid("query");
    const caller = c.get("caller");
    if (model !== undefined) checkModel(caller, model);
    const sees = (operation: Operation) =>
      mayUse(caller, operation.model) &&
      (model === undefined || operation.model === model) &&
      (state === undefined || operation.state === state);
    const read = (count: number, after = "0") => listOperations(store, count, Number(after), sees);
    // Which members a Problem may have beside, no type says.
    return answerPage(c, { limit, cursor }, read, toOperation) as never;
  });

  app.openapi(get, async (c) => {
    const operation = accessOperation(c.get("caller"), "getOperation", store, c.req.valid("param").operation);
    await wait(c, store, operation, c.req.valid("header").prefer);
    return answerOperation(c, operation, 200);
  });

  app.openapi(cancel, async (c) => {
    c.env?.keepOpen?.();
    const operation = accessOperation(c.get("caller"), "cancelOperation", store, c.req.valid("param").operation);
    await cancelOperation(operation);
    return answerOperation(c, operation, 200);
  });
}

/** Of one that was begun: where it is, and, once it has been waited for, whether it has ended. */
export async function answerBegun(
  c: Context<Environment>,
  store: Store,
  operation: Operation,
  prefer: string | undefined,
): Promise<never> {
  c.header("Location", `/v1/operations/${idOfOperation(operation)}`);
  await wait(c, store, operation, prefer);
  return answerOperation(c, operation, operation.endedAt === null ? 202 : 200);
}

/** Waits for as long as the client prefers. */
async function wait(
  c: Context<Environment>,
  store: Store,
  operation: Operation,
  prefer: string | undefined,
): Promise<void> {
  const waitMs = parseWaitMs(prefer);
  if (waitMs === 0) return;
  c.env?.stay?.("wait");
  c.env?.keepOpen?.();
  c.header("Preference-Applied", `wait=${waitMs / 1000}`);
  await waitForOperation(store, operation, waitMs, c.get("signal"));
}

function answerOperation(c: Context<Environment>, operation: Operation, status: 200 | 202): never {
  return answerPieces(c, [JSON.stringify(toOperation(operation))], status);
}
