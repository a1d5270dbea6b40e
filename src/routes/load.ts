/** The route that begins to load a model file. What becomes of it, the routes of operations tell. */

import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { startLoad } from "../loaders/load.ts";
import { actorOf } from "./access/authorize.ts";
import { checkCreation, checkModel, rootsOf } from "./access/checks.ts";
import { location, preferenceApplied } from "./answer-headers.ts";
import { defineBodyRoute } from "./body-route.ts";
import { body, json } from "./contract.ts";
import type { Environment, Services } from "./environment.ts";
import { PreferHeader } from "./headers.ts";
import { toLoad } from "./load-request.ts";
import { answerBegun } from "./operations.ts";
import { alwaysPossible, bodyFailures, declareFailures } from "./problem.ts";
import { ModelName } from "./schemas/common.ts";
import { LoadModel } from "./schemas/load.ts";
import { Operation } from "./schemas/operation.ts";

const load = createRoute({
  operationId: "loadModel",
  method: "post",
  path: "/v1/models/{model}/load",
  tags: ["models"],
  summary: "Load a model file into a region",
  description:
    "The server reads the file as itself, checks it against what its header says, copies it byte for byte, or has it mapped where it " +
    "lies, and commits the region sealed, a copy with a checksum: nobody sees one that is not whole. It goes on whatever becomes of you. What it cannot " +
    "do, the operation's `problem` says: `invalid-model-file`, `unsupported-format`, `io-error` and `source-unavailable` name the path and the reason, and " +
    "nothing is left then.",
  request: {
    params: z.object({ model: ModelName }),
    headers: PreferHeader,
    body: body(LoadModel),
  },
  responses: {
    202: json("Begun; ask for it until it has ended.", Operation, { ...location, ...preferenceApplied }),
    200: json("It has ended, within the wait or before.", Operation, { ...location, ...preferenceApplied }),
    ...declareFailures(
      ...bodyFailures,
      ...alwaysPossible,
      "model-not-found",
      "session-not-found",
      "storage-unavailable",
      "owner-required",
      "not-ready",
      "shutting-down",
    ),
  },
});

export function defineLoadRoute(app: OpenAPIHono<Environment>, { store, loading }: Services): void {
  defineBodyRoute(app, load, async (c) => {
    const caller = c.get("caller");
    const { model } = c.req.valid("param");
    checkModel(caller, model);
    store.books.model(model);
    const asked = c.req.valid("json");
    const { file, wanted: how, target } = toLoad(store, rootsOf(caller, loading.roots), model, asked);
    // Nothing is replaced by it: which version it would be, the file says.
    checkCreation(caller, store, { ...target, version: "" }, asked.session);
    const wanted = { ...target, createdBy: caller.name, actor: actorOf(c) };
    const operation = startLoad(store, loading.files, file, how, wanted, asked.key ?? null);
    return await answerBegun(c, store, operation, c.req.valid("header").prefer);
  });
}
