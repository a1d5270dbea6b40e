/** What doctor says of devices: fine, a warning with the cure, and an error of a driver that hangs. The devices are made up. */

import { describe, expect, test } from "bun:test";
import type { DriverAnswer } from "../../src/cuda/judge-device.ts";
import { mergeDevices } from "../../src/cuda/merge-devices.ts";
import type { Facts } from "../../src/memory/doctor/facts.ts";
import { judgeDevices } from "../../src/memory/doctor/judge-devices.ts";
import { answered, circumstances, listed, noDevices, shown, uuid } from "../harness/made-up-devices.ts";

const other = { ...listed, uuid: "GPU-2", busId: "0000:3b:00.0", minor: 1 };

/** @param kernel what the kernel's driver lists. */
function judge(answer: DriverAnswer, kernel = [listed]) {
  const report = { devices: kernel, driverVersion: "580.65.06", reason: null };
  return judgeDevices({ devices: mergeDevices(report, circumstances(answer, { kernel })) } as Facts);
}

describe("doctor", () => {
  test("is silent about a machine without a device", () => {
    expect(judgeDevices({ devices: noDevices } as Facts)).toEqual([
      { check: "devices", status: "ok", summary: "No CUDA driver is here.", cure: null },
    ]);
  });

  test("names what can be used", () => {
    expect(judge(answered(shown))).toEqual([
      {
        check: "devices",
        status: "ok",
        summary: `1 device can be used: NVIDIA H100 80GB HBM3 (${uuid}, 80 GiB).`,
        cure: null,
      },
    ]);
  });

  test("warns of each device that cannot be used, with the cure, and of one for a single process", () => {
    const findings = judge(answered({ ...shown, computeMode: "exclusive_process" }), [listed, other]);
    expect(findings.map(({ status }) => status)).toEqual(["ok", "warning", "warning"]);
    expect(findings[1]?.summary).toContain("one worker alone maps them");
    expect(findings[2]).toMatchObject({
      summary: expect.stringContaining("GPU-2"),
      cure: expect.stringContaining("--gpus"),
    });
  });

  test("warns where the kernel lists a GPU and its library is not here", () => {
    const findings = judge({ state: "absent", reason: "no-libcuda", message: "libcuda.so.1: no such file" });
    expect(findings).toMatchObject([{ status: "warning", cure: expect.stringContaining("--gpus") }]);
  });

  test("says once that a driver hangs, however many devices there are, and that as an error", () => {
    const hanging = judge({ state: "asked", forMs: 60_000 }, [listed, other]);
    expect(hanging).toMatchObject([{ status: "error", summary: expect.stringContaining("60 seconds") }]);
    expect(judge({ state: "asked", forMs: 60_000 }, [])).toMatchObject([{ status: "error" }]);
    expect(judge({ state: "asked", forMs: 1 }, [listed, other])).toMatchObject([{ status: "ok" }]);
  });

  test("does not take a divided GPU for a fault", () => {
    const instance = { ...shown, uuid: "MIG-1", name: "MIG 1g.10gb" };
    expect(judge(answered(instance)).map(({ status }) => status)).toEqual(["ok", "ok"]);
  });
});
