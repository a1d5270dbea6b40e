/** One request for each operation that it answers with success, and the operations by what they have in common. */

import { type Operation, operations } from "../../harness/answers.ts";
import type { AppOptions, Body, TestApp } from "../../harness/app.ts";
import { tinyUri } from "../../harness/load.ts";
import { shown, toReport } from "../../harness/made-up-devices.ts";
import { copyRegion } from "./operations.ts";
import { makePool, mapAt, pagesBytes, poolPath, poolSize, withPools } from "./pools.ts";
import { claimName, claimPath, openSession, takeLease } from "./sessions.ts";

export interface PlainRequest {
  readonly method: string;
  readonly path: string;
  readonly body?: Body;
}

/** Well-formed ids that nothing has. */
const unknownToken = "a".repeat(26);
export const unknownRegion = `reg_${unknownToken}`;
export const unknownSession = `ses_${unknownToken}`;
export const unknownLease = `lea_${unknownToken}`;
export const unknownClaim = `clm_${unknownToken}`;
export const unknownOperation = `op_${unknownToken}`;

/** Makes what the operation needs, and gives the request that succeeds. */
export const goodRequests: Readonly<Record<string, (app: TestApp) => Promise<PlainRequest>>> = {
  createRegion: async () => ({ method: "POST", path: "/v1/regions", body: { byte_size: 64, ttl_ms: 60_000 } }),
  listRegions: async () => ({ method: "GET", path: "/v1/regions" }),
  getRegion: async (app) => ({ method: "GET", path: `/v1/regions/${(await app.create()).id}` }),
  getRegionByName: async (app) => {
    await app.create({ name: "weights" });
    return { method: "GET", path: "/v1/models/default/regions/weights" };
  },
  changeRegion: async (app) => {
    return { method: "PATCH", path: `/v1/regions/${(await app.create()).id}`, body: { labels: { job: "nightly" } } };
  },
  changeRegionByName: async (app) => {
    await app.create({ name: "weights" });
    return { method: "PATCH", path: "/v1/models/default/regions/weights", body: { labels: { job: "nightly" } } };
  },
  sealRegion: async (app) => {
    return { method: "POST", path: `/v1/regions/${(await app.create()).id}/seal`, body: { checksum: true } };
  },
  sealGroup: async (app) => {
    const regions = [{ region: (await app.create()).id }, { region: (await app.create()).id }];
    return { method: "POST", path: "/v1/seal", body: { regions } };
  },
  openGroup: async (app) => {
    for (const name of ["shard-0", "shard-1"]) await app.create({ name });
    return { method: "POST", path: "/v1/open", body: { names: ["shard-0", "shard-1"] } };
  },
  verifyRegion: async (app) => {
    const { id } = await app.create();
    await app.seal(id);
    return { method: "POST", path: `/v1/regions/${id}/verify` };
  },
  adviseRegion: async (app) => {
    return { method: "POST", path: `/v1/regions/${(await app.create()).id}/advise`, body: { advice: "willneed" } };
  },
  flushRegion: async (app) => ({ method: "POST", path: `/v1/regions/${(await app.create()).id}/flush` }),
  readData: async (app) => ({ method: "GET", path: `/v1/regions/${(await app.create()).id}/data` }),
  writeData: async (app) => {
    return { method: "PUT", path: `/v1/regions/${(await app.create()).id}/data`, body: new Uint8Array(64) };
  },
  readFile: async (app) => ({ method: "GET", path: `/v1/regions/${(await app.create()).id}/file/w.safetensors` }),
  readFileByName: async (app) => {
    await app.create({ name: "weights" });
    return { method: "GET", path: "/v1/models/default/regions/weights/file/weights.safetensors" };
  },
  deleteRegion: async (app) => ({ method: "DELETE", path: `/v1/regions/${(await app.create()).id}` }),
  deleteRegionByName: async (app) => {
    await app.create({ name: "weights" });
    return { method: "DELETE", path: "/v1/models/default/regions/weights" };
  },
  registerModel: async () => ({ method: "POST", path: "/v1/models", body: { name: "llama" } }),
  listModels: async () => ({ method: "GET", path: "/v1/models" }),
  getModel: async () => ({ method: "GET", path: "/v1/models/default" }),
  changeModel: async (app) => {
    await app.register("llama");
    return { method: "PATCH", path: "/v1/models/llama", body: { memory_limit_bytes: 1_000_000 } };
  },
  unregisterModel: async (app) => {
    await app.register("llama");
    return { method: "DELETE", path: "/v1/models/llama" };
  },
  openSession: async () => ({ method: "POST", path: "/v1/sessions", body: { ttl_ms: 60_000 } }),
  copyRegion: async (app) => {
    const { id } = await app.create();
    await app.seal(id);
    return { method: "POST", path: `/v1/regions/${id}/copy`, body: { ttl_ms: 60_000 } };
  },
  loadModel: async () => ({
    method: "POST",
    path: "/v1/models/default/load",
    body: { uri: tinyUri, ttl_ms: 60_000 },
  }),
  listOperations: async () => ({ method: "GET", path: "/v1/operations" }),
  getOperation: async (app) => ({ method: "GET", path: `/v1/operations/${(await copyRegion(app)).id}` }),
  cancelOperation: async (app) => ({ method: "DELETE", path: `/v1/operations/${(await copyRegion(app)).id}` }),
  listSessions: async () => ({ method: "GET", path: "/v1/sessions" }),
  getSession: async (app) => ({ method: "GET", path: `/v1/sessions/${(await openSession(app)).id}` }),
  renewSession: async (app) => ({ method: "POST", path: `/v1/sessions/${(await openSession(app)).id}/renew` }),
  endSession: async (app) => ({ method: "DELETE", path: `/v1/sessions/${(await openSession(app)).id}` }),
  claimName: async (app) => ({ method: "POST", path: claimPath, body: { session: (await openSession(app)).id } }),
  releaseClaim: async (app) => {
    const { claim } = await claimName(app, await openSession(app));
    return { method: "DELETE", path: `${claimPath}?claim=${claim}` };
  },
  takeLease: async (app) => {
    return { method: "POST", path: `/v1/regions/${(await app.create()).id}/leases`, body: { ttl_ms: 60_000 } };
  },
  listLeases: async (app) => ({ method: "GET", path: `/v1/regions/${(await app.create()).id}/leases` }),
  renewLease: async (app) => ({ method: "POST", path: `/v1/leases/${(await takeLease(app)).id}/renew` }),
  endLease: async (app) => ({ method: "DELETE", path: `/v1/leases/${(await takeLease(app)).id}` }),
  evict: async () => ({ method: "POST", path: "/v1/evict", body: { bytes: 4096 } }),
  listEvents: async () => ({ method: "GET", path: "/v1/events" }),
  getCapabilities: async () => ({ method: "GET", path: "/v1/capabilities" }),
  createElasticPool: async () => ({
    method: "PUT",
    path: poolPath(),
    body: { virtual_capacity: poolSize, page_size: pagesBytes },
  }),
  listElasticPools: async () => ({ method: "GET", path: "/v1/vmm" }),
  getElasticPool: async (app) => ofPool(app, "GET"),
  changeElasticPool: async (app) => ({ ...(await ofPool(app, "PATCH")), body: { maximum_bytes: poolSize } }),
  deleteElasticPool: async (app) => ofPool(app, "DELETE"),
  mapPages: async (app) => ({ ...(await ofPool(app, "POST", "/map")), body: { byte_size: pagesBytes } }),
  unmapPages: async (app) => {
    const request = await ofPool(app, "POST", "/unmap");
    await mapAt(app, 0, pagesBytes);
    return { ...request, body: { byte_offset: 0, byte_size: pagesBytes } };
  },
  trimPool: async (app) => ofPool(app, "POST", "/trim"),
  compactPool: async (app) => ofPool(app, "POST", "/compact"),
  listDevices: async () => ({ method: "GET", path: "/v1/devices" }),
  getDevice: async (app) => {
    app.devices.report = toReport(shown);
    return { method: "GET", path: `/v1/devices/${shown.uuid}` };
  },
  diagnose: async () => ({ method: "GET", path: "/v1/doctor" }),
  getMetrics: async () => ({ method: "GET", path: "/metrics" }),
  getStats: async () => ({ method: "GET", path: "/v1/stats" }),
  getIndex: async () => ({ method: "GET", path: "/" }),
  isLive: async () => ({ method: "GET", path: "/livez" }),
  isReady: async () => ({ method: "GET", path: "/readyz" }),
};

/** With a pool to ask about. */
async function ofPool(app: TestApp, method: string, more = ""): Promise<PlainRequest> {
  await makePool(app);
  return { method, path: `${poolPath()}${more}` };
}

/** One object, by which apps are lent. */
const plain: AppOptions = {};

/** What an app needs to have for the request of `goodRequest`. */
export function optionsFor(operationId: string): AppOptions {
  const { path } = operations.find((operation) => operation.operationId === operationId) ?? { path: "" };
  return path.includes("/vmm") ? withPools : plain;
}

export function goodRequest(app: TestApp, operationId: string): Promise<PlainRequest> {
  const make = goodRequests[operationId];
  if (make === undefined) throw new Error(`no request that succeeds is known for ${operationId}`);
  return make(app);
}

/** The request of an operation with a path that fits, whether or not what it names is there. */
export function bareRequest(operation: Operation): PlainRequest {
  const { method } = operation;
  const path = operation.path
    .replace("{region}", unknownRegion)
    .replace("{session}", unknownSession)
    .replace("{lease}", unknownLease)
    .replace("{device_uuid}", "GPU-00000000-0000-4000-8000-00000000dead")
    .replace("{operation}", unknownOperation)
    .replace("{model}", "nobody")
    .replace("{name}", "nothing")
    .replace("{file}", "weights.safetensors");
  return { method, path: operation.operationId === "releaseClaim" ? `${path}?claim=${unknownClaim}` : path };
}

/** Those whose body is JSON. */
export const withBody = operations.filter(({ requestBody }) => requestBody?.content["application/json"] !== undefined);
export const withoutBody = operations.filter(({ requestBody }) => requestBody === undefined);
