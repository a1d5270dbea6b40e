/** GPUs as the kernel driver shows them, from texts that it writes: no GPU is needed, and none was there. */

import { describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseDriverVersion, parseInformation, readDevices } from "../../src/cuda/devices.ts";
import { information, versions } from "./fixtures/nvidia.ts";

/** A driver's folder, gone when the test is over. */
class Driver implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), "tensord-nvidia-"));

  constructor(version: string, gpus: Readonly<Record<string, string>>) {
    writeFileSync(join(this.path, "version"), version);
    for (const [busId, text] of Object.entries(gpus)) {
      mkdirSync(join(this.path, "gpus", busId), { recursive: true });
      writeFileSync(join(this.path, "gpus", busId, "information"), text);
    }
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true });
  }
}

describe("a GPU's information", () => {
  test("is read field by field", () => {
    expect(parseInformation(information.plain)).toEqual({
      uuid: "GPU-8f6d3f2a-1c5b-4f0e-9b1d-2f3a4b5c6d7e",
      name: "NVIDIA H100 80GB HBM3",
      busId: "0000:19:00.0",
      minor: 0,
      excluded: false,
    });
  });

  test("has no uuid before the driver knows one, and says when the GPU is excluded", () => {
    expect(parseInformation(information.asleep)).toMatchObject({ uuid: null, minor: 1, busId: "0000:3b:00.0" });
    expect(parseInformation(information.excluded)).toMatchObject({ excluded: true });
  });

  test("that names no GPU is none", () => {
    for (const text of ["", "\n", "Model:\t x\n", "nonsense", ":::"]) expect(parseInformation(text)).toBeUndefined();
  });

  test("has no minor that is no number", () => {
    const text = information.plain.replace("Device Minor:\t 0", "Device Minor:\t N/A");
    expect(parseInformation(text)?.minor).toBeNull();
  });
});

describe("the driver's version", () => {
  test("is read from the closed and from the open module", () => {
    expect(parseDriverVersion(versions.closed)).toBe("535.104.05");
    expect(parseDriverVersion(versions.open)).toBe("580.65.06");
  });

  test("is none in another text", () => {
    for (const text of ["", "GCC version:  gcc version 12.2.0 \n"]) expect(parseDriverVersion(text)).toBeNull();
  });
});

describe("devices", () => {
  test("are listed in the order of their bus", async () => {
    using driver = new Driver(versions.open, {
      "0000:3b:00.0": information.asleep,
      "0000:19:00.0": information.plain,
      "0000:ff:00.0": "nonsense",
    });
    const { devices, driverVersion, reason } = readDevices(driver.path);
    expect(devices.map(({ busId }) => busId)).toEqual(["0000:19:00.0", "0000:3b:00.0"]);
    expect({ driverVersion, reason }).toEqual({ driverVersion: "580.65.06", reason: null });
  });

  test("are none where the driver shows none, and the reason says so", async () => {
    using driver = new Driver(versions.closed, {});
    expect(readDevices(driver.path)).toEqual({
      devices: [],
      driverVersion: "535.104.05",
      reason: "The NVIDIA kernel driver is loaded and lists no GPU here.",
    });
  });

  test("are none where no driver is loaded, and the reason says so", async () => {
    expect(readDevices("/nowhere")).toEqual({
      devices: [],
      driverVersion: null,
      reason: "No NVIDIA kernel driver is loaded here: /nowhere is not there.",
    });
  });
});
