/** Regions on a device live as any others, in a pool of their own: charged, limited, evicted and ended there, and there alone. */

import { expect, test } from "bun:test";
import { MiB } from "../../src/memory/limits.ts";
import { createDeviceStorage, fakeDevice } from "../conformance/support/fake-device.ts";
import { type TestApp, withApp } from "../harness/app.ts";
import { withDevice } from "./support/device-failures.ts";

const device = fakeDevice.uuid;
const other = { ...fakeDevice, uuid: "GPU-00000000-0000-4000-8000-000000000001", ordinal: 1 };
const create = (app: TestApp, more: object = {}) => app.create({ storage: "cuda_vmm", byte_size: 3 * MiB, ...more });
const usedOf = async (app: TestApp, pool: string) =>
  (await app.stats()).pools.find((each) => each.pool === pool)?.used_bytes;

test(
  "a region is charged to its device in whole pages, and nothing of it to the host",
  withApp(async (app) => {
    const { id, storage, tensors } = await create(app, {
      tensors: [{ name: "w", dtype: "F32", shape: [3] }],
      byte_size: undefined,
    });
    expect(storage).toMatchObject({ format: "raw", byte_size: 12, allocation_bytes: 2 * MiB, ends_with: "server" });
    expect(tensors).toMatchObject([{ name: "w", byte_offset: 0, byte_size: 12 }]);
    expect([await usedOf(app, device), await usedOf(app, "host")]).toEqual([2 * MiB, 0]);
    await app.seal(id);
    await app.request("DELETE", `/v1/regions/${id}`);
    expect(await usedOf(app, device)).toBe(0);
  }, withDevice),
);

test(
  "a model's limit of a device counts there alone, and of what is no pool there is none",
  withApp(async (app) => {
    const limits = [{ pool: device, limit_bytes: 4 * MiB }];
    expect((await app.request("POST", "/v1/models", { name: "small", limits })).status).toBe(201);
    await create(app, { model: "small" });
    const full = await app.request("POST", "/v1/regions", {
      ...{ storage: "cuda_vmm", byte_size: 1, ttl_ms: 60_000, model: "small" },
    });
    expect(full.body).toMatchObject({ code: "model-limit-exceeded", detail: expect.stringContaining(device) });
    await app.create({ model: "small", byte_size: 8 * MiB });
    const lifted = await app.request("PATCH", "/v1/models/small", { limits: [{ pool: device, limit_bytes: null }] });
    expect(lifted.status).toBe(200);
    await create(app, { model: "small" });
    const slip = await app.request("PATCH", "/v1/models/small", { limits: [{ pool: "GPU-1", limit_bytes: 1 }] });
    expect(slip.body).toMatchObject({ code: "validation-failed", detail: expect.stringContaining(device) });
    expect((await app.request("PATCH", "/v1/models/small", {})).status).toBe(422);
  }, withDevice),
);

test(
  "room is made in the pool that is short: what is evicted elsewhere would help nobody",
  withApp(async (app) => {
    const onHost = await app.create({ name: "host", evictable: true });
    const onDevice = await create(app, { name: "device", evictable: true, byte_size: fakeDevice.totalBytes });
    for (const { id } of [onHost, onDevice]) await app.seal(id);
    for (const region of app.store.books.regions.after(0)) region.lastUsedAt = 0;
    const asked = await app.request("POST", "/v1/evict", { bytes: 2 ** 30, dry_run: true });
    expect(asked.body).toMatchObject({ evicted: [{ name: "host" }] });
    const there = await app.request("POST", "/v1/evict", { bytes: 1, pool: device, dry_run: true });
    expect(there.body).toMatchObject({ evicted: [{ name: "device" }] });
    const slip = await app.request("POST", "/v1/evict", { bytes: 1, pool: "GPU-1" });
    expect(slip.body).toMatchObject({ code: "validation-failed", detail: expect.stringContaining(device) });
    await create(app, { on_full: "evict" });
    expect((await app.request("GET", `/v1/regions/${onHost.id}`)).status).toBe(200);
    expect((await app.request("GET", `/v1/regions/${onDevice.id}`)).status).toBe(404);
  }, withDevice),
);

test(
  "of several devices one has to be named, and one that is not there is refused with those that are",
  withApp(
    async (app) => {
      const ask = (more: object) =>
        app.request("POST", "/v1/regions", { storage: "cuda_vmm", byte_size: 1, ttl_ms: 60_000, ...more });
      expect((await ask({})).body).toMatchObject({
        code: "validation-failed",
        hint: expect.stringContaining(other.uuid),
      });
      expect((await ask({ device_uuid: "GPU-2" })).body).toMatchObject({ code: "storage-unavailable" });
      expect((await ask({ device_uuid: other.uuid })).body).toMatchObject({ storage: { device_uuid: other.uuid } });
      expect([await usedOf(app, device), await usedOf(app, other.uuid)]).toEqual([0, 2 * MiB]);
      const stray = await app.request("POST", "/v1/regions", { byte_size: 1, ttl_ms: 60_000, device_uuid: device });
      expect(stray.body).toMatchObject({ code: "validation-failed" });
    },
    { storages: ({ memfds }) => ({ storages: [createDeviceStorage(memfds), createDeviceStorage(memfds, other)] }) },
  ),
);
