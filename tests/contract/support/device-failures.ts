/** Failures of regions on a device: what cannot be done to them over HTTP, and what the device has no room for. */

import type { DeviceCopier } from "../../../src/cuda/copiers.ts";
import { type FailureCode, TensordError } from "../../../src/memory/error.ts";
import { createDeviceStorage, fakeDevice } from "../../conformance/support/fake-device.ts";
import type { TestApp } from "../../harness/app.ts";
import { askInVain, type FailureCase } from "./failure-case.ts";

export const withDevice = { storages: ({ memfds }: Parts) => ({ storages: [createDeviceStorage(memfds)] }) };
type Parts = { readonly memfds: Parameters<typeof createDeviceStorage>[0] };

const create = (app: TestApp, more: object = {}) => app.create({ storage: "cuda_vmm", byte_size: 100, ...more });

/** As long as a driver has not answered. */
export const awaiting = {
  storages: () => ({
    storages: [],
    awaited: { reason: "the driver has not answered", found: new Promise<never>(() => {}) },
  }),
};

type Request = readonly [method: string, path: string, body?: object];

/** Refused because the bytes are where the server does not go. */
function whereBytesAre(operationId: string, ask: (app: TestApp) => Promise<Request>): FailureCase {
  const code: FailureCode = "storage-unavailable";
  return { operationId, code, options: withDevice, provoke: async (app) => askInVain(app, ...(await ask(app))) };
}

/** Refused because what a copier was to do there was not done. */
function byCopier(operationId: string, code: FailureCode, ask: (app: TestApp) => Promise<Request>): FailureCase {
  const run = () => Promise.reject(new TensordError(code, "Cannot go on: the test says so", { hint: "Ask again." }));
  const copier: DeviceCopier = { run, [Symbol.dispose]() {} };
  const storages = ({ memfds }: Parts) => ({ storages: [createDeviceStorage(memfds, fakeDevice, copier)] });
  return { operationId, code, options: { storages }, provoke: async (app) => askInVain(app, ...(await ask(app))) };
}

export const deviceCases: readonly FailureCase[] = [
  whereBytesAre("readData", async (app) => ["GET", `/v1/regions/${(await create(app)).id}/data`]),
  whereBytesAre("writeData", async (app) => ["PUT", `/v1/regions/${(await create(app)).id}/data`, new Uint8Array(100)]),
  whereBytesAre("readFile", async (app) => ["GET", `/v1/regions/${(await create(app)).id}/file/w.safetensors`]),
  whereBytesAre("adviseRegion", async (app) => {
    return ["POST", `/v1/regions/${(await create(app)).id}/advise`, { advice: "dontneed" }];
  }),
  whereBytesAre("flushRegion", async (app) => ["POST", `/v1/regions/${(await create(app)).id}/flush`]),
  whereBytesAre("readFileByName", async (app) => {
    await create(app, { name: "weights" });
    return ["GET", "/v1/models/default/regions/weights/file/weights.safetensors"];
  }),
  ...(["out-of-device-memory", "deadline-exceeded"] as const).flatMap((code) => [
    byCopier("sealRegion", code, async (app) => [
      "POST",
      `/v1/regions/${(await create(app)).id}/seal`,
      { checksum: true },
    ]),
    byCopier("sealGroup", code, async (app) => [
      "POST",
      "/v1/seal",
      { regions: [{ region: (await create(app)).id }, { region: (await app.create()).id }], checksum: true },
    ]),
    byCopier("verifyRegion", code, async (app) => {
      const { id } = await create(app);
      await app.seal(id);
      return ["POST", `/v1/regions/${id}/verify`];
    }),
  ]),
  ...(
    [
      ["createRegion", "POST", "/v1/regions", { storage: "cuda_vmm", byte_size: 1, ttl_ms: 1000 }],
      ["getDevice", "GET", `/v1/devices/${fakeDevice.uuid}`, undefined],
      ["evict", "POST", "/v1/evict", { bytes: 1, pool: fakeDevice.uuid }],
      ["registerModel", "POST", "/v1/models", { name: "new", limits: [{ pool: fakeDevice.uuid, limit_bytes: 1 }] }],
      ["changeModel", "PATCH", "/v1/models/default", { limits: [{ pool: fakeDevice.uuid, limit_bytes: 1 }] }],
    ] as const
  ).map(
    ([operationId, method, path, body]): FailureCase => ({
      operationId,
      code: "not-ready",
      options: awaiting,
      provoke: (app) => askInVain(app, method, path, body),
    }),
  ),
  {
    operationId: "copyRegion",
    code: "not-ready",
    options: awaiting,
    provoke: async (app) => {
      const { id } = await app.create();
      await app.seal(id);
      return await askInVain(app, "POST", `/v1/regions/${id}/copy`, { storage: "cuda_vmm", ttl_ms: 1000 });
    },
  },
  {
    operationId: "createRegion",
    code: "out-of-device-memory",
    options: withDevice,
    provoke: (app) => {
      // Others have some of it, of which the books know nothing.
      const pool = app.store.books.pools.get(fakeDevice.uuid);
      pool.limitBytes = 2 * fakeDevice.totalBytes;
      app.store.books.model("default").pools.get(fakeDevice.uuid);
      return askInVain(app, "POST", "/v1/regions", {
        storage: "cuda_vmm",
        byte_size: fakeDevice.totalBytes + 1,
        ttl_ms: 1000,
      });
    },
  },
];
