/** One list of what the driver shows and of what the kernel's driver shows, by UUID, each with whether it can be used. Pure. */

import type { Device, DeviceReport } from "../memory/host/device.ts";
import type { DriverDevice } from "./device-calls.ts";
import type { KernelDevice, KernelReport } from "./devices.ts";
import { toVersionText } from "./driver.ts";
import { type Circumstances, isMig, judgeDriver, judgeDriverDevice, judgeKernelDevice } from "./judge-device.ts";
import type { NvmlDevice } from "./nvml-calls.ts";

/** @param nvml what NVML tells, by UUID. */
export function mergeDevices(
  kernel: KernelReport,
  circumstances: Circumstances,
  nvml: ReadonlyMap<string, NvmlDevice> = new Map(),
): DeviceReport {
  const { answer } = circumstances;
  const shown = answer.state === "answered" ? answer.look.devices : [];
  const hidden = kernel.devices.filter((device) => !shown.some((one) => isSame(device, one)));
  const devices = [
    ...shown.map((one) => toShown(one, findKernel(kernel.devices, one))),
    ...hidden.map((device) => toHidden(device, circumstances, nvml.get(device.uuid ?? ""))),
  ].map((device) => ({ ...device, ...toTold(nvml.get(device.uuid ?? "")) }));
  const [first] = devices;
  const isUsable = devices.some(({ refusal }) => refusal === null);
  return {
    devices,
    driverVersion: kernel.driverVersion,
    cudaVersion: answer.state === "answered" ? toVersionText(answer.look.version) : null,
    refusal: isUsable ? null : (judgeDriver(circumstances) ?? first?.refusal ?? null),
  };
}

/** Of a whole GPU the UUID, which the kernel's driver may not know yet: then the address. */
function isSame({ uuid, busId }: KernelDevice, one: DriverDevice): boolean {
  return uuid === null ? !isMig(one) && busId.toLowerCase() === one.busId : uuid === one.uuid;
}

/** Also the GPU that an instance is of: its node is the instance's. */
function findKernel(kernel: readonly KernelDevice[], one: DriverDevice): KernelDevice | undefined {
  return kernel.find((device) => isSame(device, one)) ?? kernel.find(({ busId }) => busId.toLowerCase() === one.busId);
}

const unknown = { isPersistent: null, freeBytes: null, usedBytes: null } as const;

function toTold(told: NvmlDevice | undefined): Pick<Device, keyof typeof unknown> {
  if (told === undefined) return unknown;
  const { isPersistent, freeBytes, usedBytes } = told;
  return { isPersistent, freeBytes, usedBytes };
}

function toShown(one: DriverDevice, kernel: KernelDevice | undefined): Device {
  const { uuid, name, ordinal, busId, totalBytes, computeCapability, computeMode, hasVmm, hasFdHandles, granularity } =
    one;
  return {
    kind: "cuda",
    uuid,
    name,
    index: ordinal,
    busId,
    minor: kernel?.minor ?? null,
    excluded: false,
    computeCapability,
    totalBytes,
    granularity,
    hasVmm,
    hasFdHandles,
    handleType: hasFdHandles ? "posix_fd" : null,
    computeMode,
    isMig: isMig(one),
    ...unknown,
    refusal: judgeDriverDevice(one),
  };
}

function toHidden(device: KernelDevice, circumstances: Circumstances, told: NvmlDevice | undefined): Device {
  return {
    kind: "cuda",
    ...device,
    index: null,
    computeCapability: null,
    totalBytes: null,
    granularity: null,
    hasVmm: null,
    hasFdHandles: null,
    handleType: null,
    computeMode: null,
    isMig: null,
    ...unknown,
    refusal: judgeKernelDevice(device, circumstances, told?.isDivided === true),
  };
}
