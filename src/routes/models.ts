/** Routes of models: register a pool, read its books, change its limit, unregister it. */

import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { TensordError } from "../memory/error.ts";
import { hostPool } from "../memory/naming.ts";
import {
  changeModel,
  type LimitChanges,
  listModels,
  refuseModelInUse,
  registerModel,
  unregisterModel,
} from "../memory/sessions/models.ts";
import { countWorkers } from "../memory/sessions/workers.ts";
import { actorOf } from "./access/authorize.ts";
import { checkModel } from "./access/checks.ts";
import { mayUse } from "./access/rights.ts";
import { answer } from "./answer.ts";
import { etag, location } from "./answer-headers.ts";
import { answerPage } from "./answer-page.ts";
import { defineBodyRoute } from "./body-route.ts";
import { body, json, Limit } from "./contract.ts";
import type { Environment, Services } from "./environment.ts";
import {
  ChangeConditions,
  checkConditions,
  isKnown,
  notModified,
  ReadConditions,
  setTag,
  toTaggedModel,
} from "./preconditions.ts";
import { alwaysPossible, bodyFailures, declareFailures } from "./problem.ts";
import { ModelName, Name } from "./schemas/common.ts";
import * as schemas from "./schemas/model.ts";
import { Deletion } from "./schemas/region.ts";
import * as requests from "./schemas/requests.ts";
import { toModel } from "./to-wire.ts";

const ModelParameters = z.object({ model: ModelName });
const tags = ["models"];

const register = createRoute({
  operationId: "registerModel",
  method: "post",
  path: "/v1/models",
  tags,
  summary: "Register a pool with its limit",
  description: "A model's limit counts beside the server's. The model `default` always exists.",
  request: { body: body(requests.RegisterModel) },
  responses: {
    201: json("Registered.", schemas.Model, { ...location, ...etag }),
    ...declareFailures(
      ...bodyFailures,
      ...alwaysPossible,
      "model-exists",
      "too-many-requests",
      "not-ready",
      "shutting-down",
      "out-of-shared-memory",
    ),
  },
});

const list = createRoute({
  operationId: "listModels",
  method: "get",
  path: "/v1/models",
  tags,
  summary: "List models by name",
  description: "Each with its pools, so that one request shows who uses what.",
  request: {
    query: z.object({ limit: Limit, cursor: Name.optional() }),
  },
  responses: {
    200: json("One page.", schemas.ModelList),
    ...declareFailures(...alwaysPossible),
  },
});

const get = createRoute({
  operationId: "getModel",
  method: "get",
  path: "/v1/models/{model}",
  tags,
  summary: "A model's limit and books",
  description: "Its limit and what is charged against it, by pool.",
  request: { params: ModelParameters, headers: ReadConditions },
  responses: {
    200: json("The model.", schemas.Model, etag),
    ...notModified,
    ...declareFailures(...alwaysPossible, "model-not-found", "revision-mismatch"),
  },
});

const change = createRoute({
  operationId: "changeModel",
  method: "patch",
  path: "/v1/models/{model}",
  tags,
  summary: "Change a model's limit, at once",
  description:
    "`memory_limit_bytes` is of host memory, `limits` of any pool, a device's among them. A limit below what is used " +
    "takes nothing away: it refuses what is asked for from then on. With `If-Match` " +
    "only the revision that you know is changed.",
  request: { params: ModelParameters, headers: ChangeConditions, body: body(requests.ChangeModel) },
  responses: {
    200: json("Changed.", schemas.Model, etag),
    ...declareFailures(
      ...bodyFailures,
      ...alwaysPossible,
      "model-not-found",
      "revision-mismatch",
      "not-ready",
      "out-of-shared-memory",
    ),
  },
});

const unregister = createRoute({
  operationId: "unregisterModel",
  method: "delete",
  path: "/v1/models/{model}",
  tags,
  summary: "Unregister a model",
  description: "Refused while it has regions, unless `drain=true` deletes them with it.",
  request: {
    params: ModelParameters,
    headers: ChangeConditions,
    query: z.object({
      drain: z.enum(["true", "false"]).optional().openapi({ description: "Delete its regions with it." }),
    }),
  },
  responses: {
    200: json("Unregistered; `draining` if a process still maps one of its regions.", Deletion),
    ...declareFailures(
      ...alwaysPossible,
      "payload-too-large",
      "unsupported-media-type",
      "model-not-found",
      "model-in-use",
      "revision-mismatch",
      "out-of-shared-memory",
    ),
  },
});

export function defineModelRoutes(app: OpenAPIHono<Environment>, { store }: Services): void {
  defineBodyRoute(app, register, (c) => {
    const { name, ...asked } = c.req.valid("json");
    const model = registerModel(store, name, toLimitChanges(asked));
    c.header("Location", `/v1/models/${name}`);
    setTag(c, toTaggedModel(model));
    return answer(c, toModel(model, 0), 201);
  });

  app.openapi(list, (c) => {
    const caller = c.get("caller");
    const read = (count: number, after?: string) => {
      const { items, nextCursor } = listModels(store, count, after);
      return { items: items.filter(({ name }) => mayUse(caller, name)), nextCursor };
    };
    const workers = countWorkers(store);
    return answerPage(c, c.req.valid("query"), read, (model) => toModel(model, workers.get(model) ?? 0));
  });

  app.openapi(get, (c) => {
    checkModel(c.get("caller"), c.req.valid("param").model);
    const model = store.books.model(c.req.valid("param").model);
    const tagged = toTaggedModel(model);
    setTag(c, tagged);
    return isKnown(c, tagged) ? c.body(null, 304) : answer(c, toModel(model, countWorkers(store).get(model) ?? 0), 200);
  });

  defineBodyRoute(app, change, (c) => {
    const model = store.books.model(c.req.valid("param").model);
    checkConditions(c, "change", toTaggedModel(model));
    changeModel(store, model, toLimitChanges(c.req.valid("json")));
    setTag(c, toTaggedModel(model));
    return answer(c, toModel(model, countWorkers(store).get(model) ?? 0), 200);
  });

  app.openapi(unregister, async (c) => {
    c.env?.keepOpen?.();
    const model = store.books.model(c.req.valid("param").model);
    const drain = c.req.valid("query").drain === "true";
    refuseModelInUse(model, drain);
    checkConditions(c, "unregister", toTaggedModel(model));
    const { state, freedBytes } = await unregisterModel(store, model, drain, actorOf(c));
    return answer(c, { state, freed_bytes: freedBytes }, 200);
  });
}

interface LimitsRequest {
  readonly memory_limit_bytes?: number | null | undefined;
  readonly limits?: readonly { readonly pool: string; readonly limit_bytes: number | null }[] | undefined;
}

/** Which limits a request sets, each once. */
function toLimitChanges({ memory_limit_bytes: ofHost, limits = [] }: LimitsRequest): LimitChanges {
  const said = limits.map(({ pool, limit_bytes }) => [pool, limit_bytes] as const);
  if (ofHost !== undefined) said.push([hostPool, ofHost]);
  const changes = new Map(said);
  if (changes.size === said.length) return changes;
  throw new TensordError("validation-failed", "Cannot limit the model: a pool is limited twice, want each once", {
    hint: "`memory_limit_bytes` is the limit of `host`.",
  });
}
