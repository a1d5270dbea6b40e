/** `/v1/devices`, and what capabilities say of devices: by what drivers tell. The devices are made up, and so is what they tell. */

import { describe, expect, test } from "bun:test";
import type { z } from "@hono/zod-openapi";
import { mergeDevices } from "../../src/cuda/merge-devices.ts";
import { GiB, MiB } from "../../src/memory/limits.ts";
import type * as schemas from "../../src/routes/schemas/device.ts";
import type * as hosts from "../../src/routes/schemas/host.ts";
import { fakeDevice } from "../conformance/support/fake-device.ts";
import { type TestApp, until, withApp } from "../harness/app.ts";
import { answered, circumstances, listed, mig, shown, toReport, uuid } from "../harness/made-up-devices.ts";
import { withDevice } from "./support/device-failures.ts";
import { FoundLater } from "./support/found-later.ts";

type Devices = z.infer<typeof schemas.DeviceList>;
type Device = z.infer<typeof schemas.Device>;

const list = (app: TestApp) => app.ok<Devices>(200, "GET", "/v1/devices");
const capability = async (app: TestApp) => {
  const { devices } = await app.ok<z.infer<typeof hosts.Capabilities>>(200, "GET", "/v1/capabilities");
  return devices.find(({ kind }) => kind === "cuda");
};

describe("devices", () => {
  test(
    "are none where there is no driver, with a word, a sentence and what to do",
    withApp(async (app) => {
      const { items, reason, detail, hint } = await list(app);
      expect({ items, reason }).toEqual({ items: [], reason: "no-libcuda" });
      expect([detail, hint]).not.toContain(null);
      expect(await capability(app)).toMatchObject({ available: false, vmm: null, reason: "no-libcuda" });
    }),
  );

  test(
    "have what the driver tells, what the server's regions take of them, and what others use",
    withApp(
      async (app) => {
        await app.create({ storage: "cuda_vmm", byte_size: 3 * MiB });
        const { items, cuda_version, reason } = await list(app);
        expect(items).toMatchObject([
          {
            uuid: fakeDevice.uuid,
            index: 0,
            compute_capability: "9.0",
            vmm: true,
            fd_handles: true,
            handle_type: "posix_fd",
            mig: false,
            granularity: 2 * MiB,
            allocated_bytes: 4 * MiB,
            limit_bytes: fakeDevice.totalBytes,
            free_bytes: GiB,
            others_bytes: 6 * MiB,
            persistence_mode: true,
            usable: true,
            reason: null,
          },
        ]);
        expect({ cuda_version, reason }).toEqual({ cuda_version: "13.0", reason: null });
        const one = await app.ok<Device>(200, "GET", `/v1/devices/${fakeDevice.uuid}`);
        expect(one).toEqual(items[0] as Device);
        expect(await capability(app)).toEqual({
          kind: "cuda",
          available: true,
          driver_version: "580.65.06",
          cuda_version: "13.0",
          vmm: true,
          handle_type: "posix_fd",
          persistence_mode: true,
          survives_crash: "unknown",
          reason: null,
          detail: null,
        });
      },
      {
        ...withDevice,
        devices: (() => {
          const report = toReport({ ...shown, uuid: fakeDevice.uuid });
          const told = { isPersistent: true, freeBytes: GiB, usedBytes: 10 * MiB };
          return { ...report, devices: report.devices.map((device) => ({ ...device, ...told })) };
        })(),
      },
    ),
  );

  test(
    "without NVML are told with null for what is free: no context is made to find out",
    withApp(
      async (app) => {
        expect((await list(app)).items).toMatchObject([
          { usable: true, free_bytes: null, others_bytes: null, persistence_mode: null, allocated_bytes: 0 },
        ]);
        // Nobody has made this pool by asking.
        expect((await app.stats()).pools.map(({ pool }) => pool)).toEqual(["host"]);
      },
      { devices: toReport(shown) },
    ),
  );

  test(
    "that cannot be used say why, each for itself, beside those that can",
    withApp(
      async (app) => {
        const { items, reason } = await list(app);
        expect(items.map((device) => [device.uuid, device.usable, device.reason])).toEqual([
          [mig, true, null],
          ["GPU-2", false, "compute-mode-prohibited"],
          [uuid, false, "mig-parent"],
        ]);
        expect(reason).toBeNull();
      },
      {
        devices: mergeDevices(
          { devices: [listed], driverVersion: "580.65.06", reason: null },
          circumstances(
            answered(
              { ...shown, uuid: mig },
              { ...shown, uuid: "GPU-2", busId: "0000:3b:00.0", computeMode: "prohibited" },
            ),
          ),
        ),
      },
    ),
  );
});

describe("a device whose driver has not answered", () => {
  const onDevice = { storage: "cuda_vmm", byte_size: 3 * MiB, ttl_ms: 60_000 };

  test("is asked for in vain with 503 and when to come back, and is there once the driver has answered", async () => {
    const later = new FoundLater();
    const use = withApp(async (app) => {
      const early = await app.request("POST", "/v1/regions", onDevice);
      expect(early).toMatchObject({ status: 503, body: { code: "not-ready" } });
      expect(early.headers.get("retry-after")).toBe("1");
      expect((await app.create()).storage.kind).toBe("shm");
      const { storages } = await app.ok<z.infer<typeof hosts.Capabilities>>(200, "GET", "/v1/capabilities");
      const told = storages.find(({ kind }) => kind === "cuda_vmm");
      expect(told).toMatchObject({ available: false, reason: later.reason });
      later.find(app, { refusals: new Map([["GPU-2", "it hangs"]]) });
      await until("the pool is there", async () => (await app.stats()).pools.length === 2);
      const { id } = await app.create({ ...onDevice, device_uuid: fakeDevice.uuid });
      expect((await app.stats()).pools).toMatchObject([
        { pool: "host" },
        { pool: fakeDevice.uuid, used_bytes: 4 * MiB, limit_bytes: fakeDevice.totalBytes },
      ]);
      await app.remove(id);
      const refused = await app.request("POST", "/v1/regions", { ...onDevice, device_uuid: "GPU-2" });
      expect(refused.body).toMatchObject({
        code: "storage-unavailable",
        detail: 'Cannot use device "GPU-2": it hangs',
      });
    }, later.options);
    await use();
  });

  test("and of which it says that none can be used, is refused with that from then on", async () => {
    const later = new FoundLater();
    const use = withApp(async (app) => {
      later.findNone("the driver is a stub");
      const refused = await until("it is known", async () => {
        const answer = await app.request("POST", "/v1/regions", onDevice);
        return answer.status === 501 && answer;
      });
      expect(refused.body).toMatchObject({ detail: "Cannot use cuda_vmm storage: the driver is a stub" });
    }, later.options);
    await use();
  });
});
