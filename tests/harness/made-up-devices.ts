/** Devices as a driver's library and the kernel's driver would tell of them, made up: no card was there. */

import type { DriverDevice } from "../../src/cuda/device-calls.ts";
import type { KernelDevice } from "../../src/cuda/devices.ts";
import type { Circumstances, DriverAnswer } from "../../src/cuda/judge-device.ts";
import { mergeDevices } from "../../src/cuda/merge-devices.ts";
import type { DeviceReport } from "../../src/memory/host/device.ts";
import { GiB, MiB } from "../../src/memory/limits.ts";

export const uuid = "GPU-8f6d3f2a-1c5b-4f0e-9b1d-2f3a4b5c6d7e";
export const mig = "MIG-11111111-2222-5333-8444-555555555555";

/** As the driver's library tells of a GPU with which nothing is wrong. */
export const shown: DriverDevice = {
  uuid,
  name: "NVIDIA H100 80GB HBM3",
  ordinal: 0,
  busId: "0000:19:00.0",
  totalBytes: 80 * GiB,
  computeCapability: "9.0",
  computeMode: "default",
  hasVmm: true,
  hasFdHandles: true,
  granularity: 2 * MiB,
};

/** The same GPU as the kernel's driver lists it. */
export const listed: KernelDevice = {
  uuid,
  name: "NVIDIA H100 80GB HBM3",
  busId: "0000:19:00.0",
  minor: 0,
  excluded: false,
};

/** What the drivers tell where there is no device. */
export const noDevices: DeviceReport = {
  devices: [],
  driverVersion: null,
  cudaVersion: null,
  refusal: { reason: "no-libcuda", detail: "No CUDA driver is here.", hint: "Nothing." },
};

/** What is told of these devices of the driver's, all of which the kernel's driver lists. */
export function toReport(...devices: readonly DriverDevice[]): DeviceReport {
  const kernel = devices.map((device) => ({ ...listed, uuid: device.uuid, name: device.name, busId: device.busId }));
  const report = { devices: kernel, driverVersion: "580.65.06", reason: null };
  return mergeDevices(report, circumstances(answered(...devices), { kernel }));
}

export function answered(...devices: readonly DriverDevice[]): DriverAnswer {
  return { state: "answered", look: { version: 13000, devices } };
}

export function circumstances(answer: DriverAnswer, more: Partial<Circumstances> = {}): Circumstances {
  return { answer, kernel: [listed], answerMs: 30_000, visible: undefined, hasNode: () => true, ...more };
}
