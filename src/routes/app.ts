/** The app, assembled: what every request passes, the routes, and what answers when none does. Knows no transport. */

import { OpenAPIHono } from "@hono/zod-openapi";
import type { ErrorHandler } from "hono";
import { TensordError } from "../memory/error.ts";
import { authorize } from "./access/authorize.ts";
import type { Caller } from "./access/caller.ts";
import { defineClaimRoutes } from "./claims.ts";
import { defineDataRoutes } from "./data.ts";
import { defineDeviceRoutes } from "./devices.ts";
import { defineDiagnosisRoutes } from "./diagnosis.ts";
import { defineDocsPage } from "./docs-page.ts";
import { defineDocuments } from "./documents.ts";
import { defineElasticPageRoutes } from "./elastic-pages.ts";
import { defineElasticPoolRoutes } from "./elastic-pools.ts";
import type { Environment, Services } from "./environment.ts";
import { defineEventRoutes, socketQueries } from "./events.ts";
import { defineEvictionRoute } from "./eviction.ts";
import { defineFileRoutes } from "./file.ts";
import { findOperations } from "./find-operation.ts";
import { defineGroupRoutes } from "./groups.ts";
import { defineHostRoutes } from "./host.ts";
import { defineIndexPage } from "./index-page.ts";
import { defineLeaseRoutes } from "./leases.ts";
import { defineLoadRoute } from "./load.ts";
import { defineModelRoutes } from "./models.ts";
import { noRoute } from "./no-route.ts";
import { type Admit, observe } from "./observe.ts";
import { defineOperationRoutes } from "./operations.ts";
import { definePageRoutes } from "./pages.ts";
import { toProblem, toProblemResponse } from "./problem.ts";
import { mayHaveBody, readBody } from "./read-body.ts";
import { refuseUnknownQuery } from "./refuse-unknown-query.ts";
import { defineRegionRoutes } from "./region.ts";
import { defineRegionsRoutes } from "./regions.ts";
import { KnownEvents } from "./schemas/event-data.ts";
import type { ProblemBody } from "./schemas/problem.ts";
import { TensorReference } from "./schemas/reference.ts";
import { FailureCode } from "./schemas/words.ts";
import { defineSealRoutes } from "./seal.ts";
import { defineSessionRoutes } from "./sessions.ts";
import { toValidationFailure } from "./validation-failure.ts";

/**
 * The whole HTTP contract over `services`.
 * @example
 * const response = await createApp(services).request("/v1/stats");
 */
export function createApp(services: Services): OpenAPIHono<Environment> {
  const app = new OpenAPIHono<Environment>({
    strict: false,
    defaultHook: (result) => {
      if (!result.success) throw toValidationFailure(result.error.issues);
    },
  });
  const findOperation = findOperations(app);
  const answerFailure = toFailureHandler(services);
  app.use(observe(findOperation, admit(services), answerFailure, services));
  defineRegionsRoutes(app, services);
  defineRegionRoutes(app, services);
  defineSealRoutes(app, services);
  definePageRoutes(app, services);
  defineGroupRoutes(app, services);
  defineDataRoutes(app, services);
  defineFileRoutes(app, services);
  defineOperationRoutes(app, services);
  defineLoadRoute(app, services);
  defineModelRoutes(app, services);
  defineEventRoutes(app, services);
  defineEvictionRoute(app, services);
  defineSessionRoutes(app, services);
  defineClaimRoutes(app, services);
  defineLeaseRoutes(app, services);
  defineHostRoutes(app, services);
  defineDiagnosisRoutes(app, services);
  defineDeviceRoutes(app, services);
  defineElasticPoolRoutes(app, services);
  defineElasticPageRoutes(app, services);
  defineIndexPage(app, services);
  defineDocsPage(app);
  defineDocuments(app, services);
  app.openAPIRegistry.register("KnownEvents", KnownEvents);
  app.openAPIRegistry.register("FailureCode", FailureCode);
  app.openAPIRegistry.register("TensorReference", TensorReference);
  app.onError(answerFailure);
  app.notFound(noRoute(app, services.store));
  return app;
}

function toFailureHandler(services: Services): ErrorHandler<Environment> {
  return function answerFailure(error, c) {
    const id = c.get("requestId");
    const { aborted = false, reason } = c.get("signal") ?? {};
    // A body that was cut off fails with an error of its own.
    const isGone = aborted && (error === reason || error.name === "AbortError");
    const failure = isGone
      ? new TensordError("cancelled", "Cannot answer: the client went away", { hint: "Ask again." })
      : error;
    const problem = toProblem(failure, id, (cause) => services.onUnexpected(cause, id));
    return toProblemResponse(hideOthers(c.get("caller"), problem), c.env);
  };
}

/** Who uses most of what ran out are other callers' sessions, which only an administrator sees. */
function hideOthers(caller: Caller | undefined, { holders, ...problem }: ProblemBody): ProblemBody {
  return holders === undefined || caller?.role !== "admin" ? problem : { ...problem, holders };
}

/** What every request passes before its route. */
function admit(services: Services): Admit {
  return function admit(c, operation) {
    authorize(c, operation, services);
    // Reading a body may replace the raw request, and its signal with it.
    c.set("signal", c.req.raw.signal);
    refuseUnknownQuery(c, operation, socketQueries);
    return mayHaveBody(c, operation) ? readBody(c, operation, services) : undefined;
  };
}
