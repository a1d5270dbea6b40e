/** Whether a device can be used, by what its drivers tell: each reason has a sentence and a cure. The devices are made up. */

import { describe, expect, test } from "bun:test";
import type { DriverDevice } from "../../src/cuda/device-calls.ts";
import { type DriverAnswer, judgeDriver, judgeDriverDevice, judgeKernelDevice } from "../../src/cuda/judge-device.ts";
import { mergeDevices } from "../../src/cuda/merge-devices.ts";
import { deviceRefusalReasons } from "../../src/memory/host/device.ts";
import { GiB } from "../../src/memory/limits.ts";
import { answered, circumstances, listed, mig, shown, uuid } from "../harness/made-up-devices.ts";

const absent = (reason: "no-libcuda" | "too-old" | "no-device" | "failed", message: string): DriverAnswer => ({
  state: "absent",
  reason,
  message,
});
const instance: DriverDevice = { ...shown, uuid: mig, name: "NVIDIA H100 80GB HBM3 MIG 1g.10gb", totalBytes: 10 * GiB };
const kernel = { devices: [listed], driverVersion: "580.65.06", reason: null };

/** Each reason, what it comes from, and words of its sentence. */
const cases = [
  ["no-libcuda", judgeDriver(circumstances(absent("no-libcuda", "libcuda.so.1: not there"))), "the driver's library"],
  ["no-libcuda", judgeDriver(circumstances(absent("no-libcuda", "not there"), { kernel: [] })), "No CUDA driver is"],
  ["driver-too-old", judgeDriver(circumstances(absent("too-old", "has no cuMemCreate"))), "has no cuMemCreate"],
  ["driver-failed", judgeDriver(circumstances(absent("failed", "cuInit: CUDA_ERROR_UNKNOWN"))), "CUDA_ERROR_UNKNOWN"],
  ["no-device", judgeDriver(circumstances(absent("no-device", "NO_DEVICE"), { kernel: [] })), "NO_DEVICE"],
  ["not-visible", judgeDriver(circumstances(absent("no-device", "NO_DEVICE"))), "none of the machine's GPUs"],
  ["driver-asked", judgeDriver(circumstances({ state: "asked", forMs: 29_999 })), "has not answered yet"],
  ["driver-silent", judgeDriver(circumstances({ state: "asked", forMs: 61_000 })), "not answered for 61 seconds"],
  ["compute-mode-prohibited", judgeDriverDevice({ ...shown, computeMode: "prohibited" }), "prohibited"],
  ["no-vmm", judgeDriverDevice({ ...shown, hasVmm: false, granularity: null }), "cuMemCreate"],
  ["no-fd-handles", judgeDriverDevice({ ...shown, hasFdHandles: false, granularity: null }), "file descriptor"],
  ["excluded", judgeKernelDevice({ ...listed, excluded: true }, circumstances(answered(shown))), "leave it alone"],
  ["mig-parent", judgeKernelDevice(listed, circumstances(answered(instance))), mig],
  ["mig-parent", judgeKernelDevice(listed, circumstances(absent("no-device", "NO_DEVICE")), true), "none of its"],
  [
    "not-visible",
    judgeKernelDevice(listed, circumstances(answered(), { visible: "1" })),
    'CUDA_VISIBLE_DEVICES is "1"',
  ],
  ["not-visible", judgeKernelDevice(listed, circumstances(answered(), { hasNode: () => false })), "/dev/nvidia0"],
  ["not-visible", judgeKernelDevice(listed, circumstances(answered())), "does not show it"],
  // Why none is visible each of them says for itself.
  ["not-visible", judgeKernelDevice(listed, circumstances(absent("no-device", "NO_DEVICE"), { visible: "" })), '""'],
  ["driver-failed", judgeKernelDevice(listed, circumstances(absent("failed", "cuInit: x"))), "cuInit: x"],
] as const;

describe("a device that cannot be used", () => {
  for (const [reason, refusal, words] of cases) {
    test(`is told as ${reason}, with a sentence that says ${words}, and what to do`, () => {
      const { detail = "", hint = "" } = refusal ?? {};
      expect(refusal?.reason).toBe(reason);
      expect(detail).toContain(words);
      for (const sentence of [detail, hint]) expect(sentence).toMatch(/^[A-Z].*\.$/);
    });
  }

  test("has each reason that there is a word for", () => {
    expect([...new Set(cases.map(([reason]) => reason))].toSorted()).toEqual([...deviceRefusalReasons].toSorted());
  });
});

test("a device in any other compute mode can be used, and what the driver shows as well", () => {
  for (const computeMode of ["default", "exclusive_process", "7"]) {
    expect(judgeDriverDevice({ ...shown, computeMode })).toBeNull();
  }
  expect(judgeDriver(circumstances(answered()))).toBeNull();
});

describe("devices of both drivers", () => {
  test("are one by their UUID, whatever each alone knows", () => {
    const { devices, refusal, cudaVersion, driverVersion } = mergeDevices(kernel, circumstances(answered(shown)));
    expect(devices).toMatchObject([{ uuid, index: 0, minor: 0, totalBytes: 80 * GiB, isMig: false, refusal: null }]);
    expect({ refusal, cudaVersion, driverVersion }).toEqual({
      refusal: null,
      cudaVersion: "13.0",
      driverVersion: "580.65.06",
    });
  });

  test("are one by their address where the kernel's driver knows no UUID yet", () => {
    const asleep = { ...listed, uuid: null, busId: "0000:19:00.0" };
    const { devices } = mergeDevices({ ...kernel, devices: [asleep] }, circumstances(answered(shown)));
    expect(devices).toMatchObject([{ uuid, minor: 0 }]);
  });

  test("are a divided GPU and its instances, which have its node", () => {
    const { devices, refusal } = mergeDevices(kernel, circumstances(answered(instance)));
    expect(devices).toMatchObject([
      { uuid: mig, isMig: true, minor: 0, refusal: null },
      { uuid, index: null, refusal: { reason: "mig-parent" } },
    ]);
    expect(refusal).toBeNull();
  });

  test("are all of the driver's and the rest of the kernel's, and the list says why none can be used", () => {
    const hidden = { ...listed, uuid: "GPU-2", busId: "0000:3b:00.0", minor: 1 };
    const prohibited = { ...shown, computeMode: "prohibited" };
    const report = mergeDevices({ ...kernel, devices: [listed, hidden] }, circumstances(answered(prohibited)));
    expect(report.devices.map((device) => [device.uuid, device.refusal?.reason])).toEqual([
      [uuid, "compute-mode-prohibited"],
      ["GPU-2", "not-visible"],
    ]);
    expect(report.refusal?.reason).toBe("compute-mode-prohibited");
  });

  test("have of NVML what it tells by UUID, and null of the others", () => {
    const nvml = new Map([[uuid, { isPersistent: true, freeBytes: 3, usedBytes: 4, isDivided: false }]]);
    const other = { ...shown, uuid: "GPU-2", ordinal: 1, busId: "0000:3b:00.0" };
    const { devices } = mergeDevices(kernel, circumstances(answered(shown, other)), nvml);
    expect(devices).toMatchObject([
      { isPersistent: true, freeBytes: 3, usedBytes: 4 },
      { isPersistent: null, freeBytes: null, usedBytes: null },
    ]);
  });

  test("are those of the kernel alone where there is no library", () => {
    const report = mergeDevices(kernel, circumstances(absent("no-libcuda", "libcuda.so.1: no such file")));
    expect(report.devices).toMatchObject([{ uuid, totalBytes: null, refusal: { reason: "no-libcuda" } }]);
    expect(report).toMatchObject({ cudaVersion: null, refusal: { reason: "no-libcuda" } });
  });
});
