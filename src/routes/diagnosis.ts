/** Routes by which a server explains itself: what it can do, what is wrong, and its metrics. */

import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { brokerVersion, describeStorages, features } from "../memory/host/capabilities.ts";
import { dtypes } from "../memory/layout/dtype.ts";
import { limits } from "../memory/limits.ts";
import { answer } from "./answer.ts";
import { json } from "./contract.ts";
import { toDeviceCapabilities } from "./devices.ts";
import type { Environment, Services } from "./environment.ts";
import { alwaysPossible, declareFailures } from "./problem.ts";
import * as schemas from "./schemas/host.ts";

const tags = ["host"];

const capabilities = createRoute({
  operationId: "getCapabilities",
  method: "get",
  path: "/v1/capabilities",
  tags,
  summary: "What this host and this server can do",
  description: "Features that a client may use, storages, dtypes, and the limits that requests are held to.",
  responses: { 200: json("As of now.", schemas.Capabilities), ...declareFailures(...alwaysPossible) },
});

const doctor = createRoute({
  operationId: "diagnose",
  method: "get",
  path: "/v1/doctor",
  tags,
  summary: "What is wrong with this host or will be, in words, with the cure",
  description:
    "Looks anew at shared memory, limits, leftovers of other instances and devices, and says what to do about " +
    "each finding.",
  responses: {
    200: json("Every check, those that found nothing too.", schemas.Diagnosis),
    ...declareFailures(...alwaysPossible),
  },
});

const metrics = createRoute({
  operationId: "getMetrics",
  method: "get",
  path: "/metrics",
  tags,
  summary: "The server's metrics",
  description:
    "Of requests, pools, regions and events, in the text format of Prometheus, or in OpenMetrics if `Accept` asks for that.",
  responses: {
    200: {
      description: "As of now.",
      content: { "text/plain": { schema: z.string() }, "application/openmetrics-text": { schema: z.string() } },
    },
    ...declareFailures(...alwaysPossible),
  },
});

const nameCharacters = 128;

function toReserve({ budgetBytes, givesHugePages, absence, smallOnly }: Services["store"]["reserve"]) {
  const told = budgetBytes === 0 ? "The server is told to have none, or regions may take less than 4 GiB." : null;
  const found = absence ?? smallOnly;
  const reason = found === undefined ? told : `${found[0]?.toUpperCase()}${found.slice(1)}.`;
  return { bytes: budgetBytes, huge_pages: givesHugePages, reason: givesHugePages ? null : reason };
}

export function defineDiagnosisRoutes(app: OpenAPIHono<Environment>, services: Services): void {
  app.openapi(capabilities, async (c) => {
    const [{ shm, hugePages, ...platform }, devices] = await Promise.all([
      services.host.capabilities(),
      services.host.devices(),
    ]);
    const body: z.infer<typeof schemas.Capabilities> = {
      api: "v1",
      version: services.version,
      instance: services.store.instance,
      features: [...features],
      platform,
      shm: {
        path: shm.path,
        filesystem: shm.fileSystem,
        total_bytes: shm.totalBytes,
        huge_pages: shm.hugePages,
        page_size: shm.pageSize,
      },
      reserve: toReserve(services.store.reserve),
      broker: toBroker(services.host.brokerPath()),
      huge_pages: hugePages.map(({ pageBytes, totalBytes, freeBytes }) => ({
        page_size: pageBytes,
        total_bytes: totalBytes,
        free_bytes: freeBytes,
      })),
      storages: describeStorages(
        services.store.storages.usable,
        services.store.storages.withheld,
        services.store.storages.absences,
      ).map(({ kind, available, survivesRestart, endsWith, reason }) => ({
        kind,
        available,
        survives_restart: survivesRestart,
        ends_with: endsWith,
        reason,
      })),
      devices: toDeviceCapabilities(devices, platform.os),
      dtypes: [...dtypes],
      limits: toLimits(),
    };
    return answer(c, body, 200);
  });

  app.openapi(doctor, async (c) => {
    const { ok, findings } = await services.host.diagnose();
    return answer(c, { ok, findings: [...findings] }, 200);
  });

  app.openapi(metrics, async (c) => {
    const { contentType, text } = await services.host.metrics(c.req.header("accept") ?? null);
    return c.body(text, 200, { "content-type": contentType, vary: "Accept" }) as never;
  });
}

function toBroker(path: string | null): z.infer<typeof schemas.Capabilities>["broker"] {
  return path === null ? null : { path, v: brokerVersion };
}

function toLimits() {
  return {
    request_body_bytes: limits.createBodyBytes,
    region_bytes: limits.regionBytes,
    region_tensors: limits.regionTensors,
    regions: limits.regions,
    models: limits.models,
    name_characters: nameCharacters,
    tensor_name_bytes: limits.tensorNameBytes,
    tensor_dimensions: limits.tensorDimensions,
    labels: limits.labels,
    label_key_characters: limits.labelKeyCharacters,
    label_value_characters: limits.labelValueCharacters,
    ttl_ms: limits.ttlMs,
    list_items: limits.listItems,
    wait_seconds: limits.waitSeconds,
  };
}
