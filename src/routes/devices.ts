/** Routes of devices: what they are, how much of them is taken, and why one cannot be used. */

import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { TensordError } from "../memory/error.ts";
import type { Device, DeviceReport } from "../memory/host/device.ts";
import { quote } from "../memory/naming.ts";
import type { Books } from "../memory/state/books.ts";
import { answer } from "./answer.ts";
import { json } from "./contract.ts";
import type { Environment, Services } from "./environment.ts";
import { alwaysPossible, declareFailures } from "./problem.ts";
import * as schemas from "./schemas/device.ts";

const tags = ["host"];

const list = createRoute({
  operationId: "listDevices",
  method: "get",
  path: "/v1/devices",
  tags,
  summary: "The devices of this host, and whether regions can be made on them",
  description:
    "What the CUDA driver shows the server and what the kernel's driver lists beside, by UUID. No context is made for it, so " +
    "that it takes no memory of a device. A driver that has not answered yet is not waited for: `reason` says so.",
  responses: { 200: json("All of them.", schemas.DeviceList), ...declareFailures(...alwaysPossible) },
});

const get = createRoute({
  operationId: "getDevice",
  method: "get",
  path: "/v1/devices/{device_uuid}",
  tags,
  summary: "One device",
  description: "As the list of devices has it.",
  request: { params: z.object({ device_uuid: schemas.DeviceUuid }) },
  responses: {
    200: json("As of now.", schemas.Device),
    ...declareFailures(...alwaysPossible, "device-not-found", "not-ready"),
  },
});

export function defineDeviceRoutes(app: OpenAPIHono<Environment>, { store, host }: Services): void {
  app.openapi(list, async (c) => {
    const report = await host.devices();
    const { driverVersion, cudaVersion, devices } = report;
    return answer(
      c,
      {
        items: devices.map((device) => toDevice(store.books, device)),
        driver_version: driverVersion,
        cuda_version: cudaVersion,
        ...toRefusal(report),
      },
      200,
    );
  });

  app.openapi(get, async (c) => {
    const { device_uuid: uuid } = c.req.valid("param");
    const { devices } = await host.devices();
    const device = devices.find((one) => one.uuid === uuid);
    if (device !== undefined) return answer(c, toDevice(store.books, device), 200);
    store.storages.refuseIfAwaited(`find device ${quote(uuid)}`);
    const there = devices.flatMap((one) => one.uuid ?? []);
    throw new TensordError(
      "device-not-found",
      `Cannot find device ${quote(uuid)}: this host has ${there.length === 0 ? "none" : there.join(", ")}`,
      { hint: "List the devices, and take a UUID from there. A number is another one in each process." },
    );
  });
}

function toRefusal({ refusal }: Pick<DeviceReport, "refusal">) {
  return { reason: refusal?.reason ?? null, detail: refusal?.detail ?? null, hint: refusal?.hint ?? null };
}

function toDevice({ pools }: Books, device: Device): z.infer<typeof schemas.Device> {
  const { kind, uuid, name, index, busId, minor, excluded, usedBytes, freeBytes } = device;
  // Asked for by its name, a pool that is not there would be made.
  const pool = [...pools.all].find((one) => one.name === uuid);
  const allocatedBytes = pool?.takenBytes ?? 0;
  return {
    kind,
    uuid,
    name,
    index,
    bus_id: busId,
    minor,
    excluded,
    compute_capability: device.computeCapability,
    total_bytes: device.totalBytes,
    granularity: device.granularity,
    vmm: device.hasVmm,
    fd_handles: device.hasFdHandles,
    handle_type: device.handleType,
    compute_mode: device.computeMode,
    mig: device.isMig,
    persistence_mode: device.isPersistent,
    allocated_bytes: allocatedBytes,
    limit_bytes: pool?.limitBytes ?? null,
    free_bytes: freeBytes,
    others_bytes: usedBytes === null ? null : Math.max(0, usedBytes - allocatedBytes),
    usable: device.refusal === null,
    ...toRefusal(device),
  };
}

/** What a client decides by before it asks for a device. */
export function toDeviceCapabilities(
  { devices, driverVersion, cudaVersion, refusal }: DeviceReport,
  os: string,
): z.infer<typeof schemas.DeviceCapability>[] {
  const told = devices.filter(({ hasVmm }) => hasVmm !== null);
  const persistent = devices.map(({ isPersistent }) => isPersistent);
  const cuda = {
    kind: "cuda",
    available: refusal === null && devices.length > 0,
    driver_version: driverVersion,
    cuda_version: cudaVersion,
    vmm: told.length === 0 ? null : told.some(({ hasVmm }) => hasVmm),
    handle_type: devices.find(({ handleType }) => handleType !== null)?.handleType ?? null,
    persistence_mode: persistent.length === 0 || persistent.includes(null) ? null : persistent.every(Boolean),
    survives_crash: "unknown",
    reason: refusal?.reason ?? null,
    detail: refusal?.detail ?? null,
  };
  return os === "darwin" ? [cuda, metal] : [cuda];
}

/** Every Mac that runs this has it. */
const metal = {
  kind: "metal",
  available: false,
  driver_version: null,
  cuda_version: null,
  vmm: null,
  handle_type: null,
  persistence_mode: null,
  survives_crash: "unknown",
  reason: "not-offered",
  detail: "This version makes no regions on Metal devices.",
};
