/** What a declared failure and the way to provoke it look like, and the cases that many operations share. */

import { expect } from "bun:test";
import type { FailureCode } from "../../../src/memory/error.ts";
import { limits } from "../../../src/memory/limits.ts";
import type { Answer } from "../../harness/answers.ts";
import { declaredCodes, findOperation, operations } from "../../harness/answers.ts";
import type { AppOptions, Body, TestApp } from "../../harness/app.ts";
import {
  bareRequest,
  goodRequest,
  unknownLease,
  unknownOperation,
  unknownRegion,
  unknownSession,
  withBody,
  withoutBody,
} from "./requests.ts";
import { claimPath } from "./sessions.ts";
import type { SmallTmpfs } from "./small-tmpfs.ts";

export interface FailureCase {
  readonly operationId: string;
  readonly code: FailureCode;
  /** Brings the world about and asks; resolves with the answer that must be the failure. */
  readonly provoke: (app: TestApp) => Promise<Answer>;
  readonly options?: AppOptions;
}

/** A case in a file system that can be filled. */
export interface FullCase extends Omit<FailureCase, "provoke" | "options"> {
  readonly provoke: (app: TestApp, tmpfs: SmallTmpfs) => Promise<Answer>;
}

/** Asks what must be refused, and sees to it that the refusal left nothing behind. */
export async function askInVain(app: TestApp, method: string, path: string, body?: Body): Promise<Answer> {
  const operation = findOperation(method, path);
  const before = app.footprint();
  const answer = await app.request(method, path, body);
  const after = app.footprint();
  if (!Bun.deepEquals(before, after)) {
    throw new Error(`${operation?.operationId} left something behind: ${JSON.stringify({ before, after })}`);
  }
  return answer;
}

/** Every operation with a body, when the body is none that it can read. */
export const bodyCases: readonly FailureCase[] = withBody.flatMap(({ operationId }) => [
  {
    operationId,
    code: "malformed-body" as const,
    provoke: async (app: TestApp) => {
      const { method, path } = await goodRequest(app, operationId);
      return askInVain(app, method, path, '{"broken":');
    },
  },
  {
    operationId,
    code: "unsupported-media-type" as const,
    provoke: async (app: TestApp) => {
      const { method, path, body } = await goodRequest(app, operationId);
      return app.request(method, path, JSON.stringify(body), { headers: { "content-type": "text/plain" } });
    },
  },
  {
    operationId,
    code: "payload-too-large" as const,
    provoke: async (app: TestApp) => {
      const { method, path, body } = await goodRequest(app, operationId);
      const most = operationId === "createRegion" ? limits.createBodyBytes : limits.requestBodyBytes;
      return askInVain(app, method, path, JSON.stringify(body).padEnd(most + 1));
    },
  },
  {
    operationId,
    code: "validation-failed" as const,
    provoke: async (app: TestApp) => {
      const { method, path, body } = await goodRequest(app, operationId);
      return askInVain(app, method, path, { ...(body as object), surprise: true });
    },
  },
]);

/** Operations without a body that read one all the same, and say so, when it is none that they can read. */
export const strayBodyCases: readonly FailureCase[] = withoutBody.flatMap(({ operationId, responses }) => {
  const declared = Object.values(responses).flatMap(({ description }) => declaredCodes(description));
  const bodies = {
    "malformed-body": { body: '{"broken":', contentType: "application/json" },
    "unsupported-media-type": { body: "hello", contentType: "text/plain" },
    "payload-too-large": { body: " ".repeat(limits.requestBodyBytes + 1), contentType: "application/json" },
  } as const;
  const codes = (Object.keys(bodies) as (keyof typeof bodies)[]).filter((code) => declared.includes(code));
  return codes.map((code) => ({
    operationId,
    code,
    provoke: async (app: TestApp) => {
      const { method, path } = await goodRequest(app, operationId);
      const { body, contentType } = bodies[code];
      const answer = await app.request(method, path, body, { headers: { "content-type": contentType } });
      // Nothing was done of it: what it is about is as it was.
      if (method !== "GET") expect((await app.request(method, path)).status).toBeLessThan(300);
      return answer;
    },
  }));
});

/** Every operation whose path names something, when that is not there. */
export const missingCases: readonly FailureCase[] = operations.flatMap((operation): FailureCase[] => {
  const { operationId } = operation;
  const provoke = async (app: TestApp) => {
    const { body } = await goodRequest(app, operationId);
    const { method, path } = bareRequest(operation);
    return askInVain(app, method, path, body);
  };
  if (operationId === "releaseClaim") return [{ operationId, code: "claim-not-found", provoke }];
  if (operation.path.includes("{region}")) return [{ operationId, code: "region-not-found", provoke }];
  if (operation.path.includes("{session}")) return [{ operationId, code: "session-not-found", provoke }];
  if (operation.path.includes("{operation}")) return [{ operationId, code: "operation-not-found", provoke }];
  if (operation.path.includes("{lease}")) return [{ operationId, code: "lease-not-found", provoke }];
  if (operation.path.includes("{model}")) return [{ operationId, code: "model-not-found", provoke }];
  if (operation.path.includes("{device_uuid}")) return [{ operationId, code: "device-not-found", provoke }];
  return [];
});

/** Every operation that takes conditions, asked by who knows something else. */
export const conditionCases: readonly FailureCase[] = operations
  .filter(({ parameters = [] }) => parameters.some(({ name }) => name === "if-match"))
  .map(({ operationId }) => ({
    operationId,
    code: "revision-mismatch",
    provoke: async (app) => {
      const { method, path, body } = await goodRequest(app, operationId);
      return app.request(method, path, body, { headers: { "if-match": '"other"' } });
    },
  }));

/** What the parts of a request that are no body can get wrong. */
export const parameterCases: readonly FailureCase[] = [
  refusedParameter("listRegions", "GET", "/v1/regions?limit=0"),
  refusedParameter("getRegion", "GET", `/v1/regions/${unknownRegion.repeat(3)}`),
  refusedParameter("verifyRegion", "POST", `/v1/regions/${unknownRegion.repeat(3)}/verify`),
  refusedParameter("flushRegion", "POST", `/v1/regions/${unknownRegion.repeat(3)}/flush`),
  refusedParameter("deleteRegion", "DELETE", `/v1/regions/${unknownRegion.repeat(3)}`),
  refusedParameter("getRegionByName", "GET", "/v1/models/default/regions/a%2Fb"),
  refusedParameter("deleteRegionByName", "DELETE", "/v1/models/default/regions/weights?version=a%2Fb"),
  refusedParameter("readFileByName", "GET", "/v1/models/default/regions/weights/file/a%2Fb"),
  refusedParameter("listSessions", "GET", "/v1/sessions?limit=0"),
  refusedParameter("getSession", "GET", `/v1/sessions/${unknownSession.repeat(3)}`),
  refusedParameter("renewSession", "POST", `/v1/sessions/${unknownSession.repeat(3)}/renew`),
  refusedParameter("endSession", "DELETE", `/v1/sessions/${unknownSession.repeat(3)}`),
  refusedParameter("releaseClaim", "DELETE", claimPath),
  refusedParameter("listOperations", "GET", "/v1/operations?state=asleep"),
  refusedParameter("getOperation", "GET", `/v1/operations/${unknownOperation.repeat(3)}`),
  refusedParameter("cancelOperation", "DELETE", `/v1/operations/${unknownOperation.repeat(3)}`),
  refusedParameter("listLeases", "GET", `/v1/regions/${unknownRegion.repeat(3)}/leases`),
  refusedParameter("renewLease", "POST", `/v1/leases/${unknownLease.repeat(3)}/renew`),
  refusedParameter("endLease", "DELETE", `/v1/leases/${unknownLease.repeat(3)}`),
  refusedParameter("listEvents", "GET", "/v1/events?after=yesterday"),
  refusedParameter("getDevice", "GET", `/v1/devices/${"x".repeat(1000)}`),
  refusedParameter("listElasticPools", "GET", "/v1/vmm?cursor=-1"),
  refusedParameter("listModels", "GET", "/v1/models?limit=1001"),
  refusedParameter("getModel", "GET", "/v1/models/.hidden"),
  refusedParameter("unregisterModel", "DELETE", "/v1/models/default?drain=maybe"),
];

/** Every operation, asked with a query parameter that none takes. */
export const queryCases: readonly FailureCase[] = operations.map(({ operationId }) => ({
  operationId,
  code: "validation-failed",
  provoke: async (app) => {
    const { method, path, body } = await goodRequest(app, operationId);
    return askInVain(app, method, `${path}${path.includes("?") ? "&" : "?"}surprise=1`, body);
  },
}));

function refusedParameter(operationId: string, method: string, path: string): FailureCase {
  return { operationId, code: "validation-failed", provoke: (app) => askInVain(app, method, path) };
}
