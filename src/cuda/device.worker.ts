/** The Worker behind a device lane: makes one call of the driver at a time and answers with what came of it. It decides nothing. */

import type { DeviceJob, DeviceReply, DriverDevice, DriverLook } from "./device-calls.ts";
import { type AllocationHandle, Driver } from "./driver.ts";
import { DriverError, NoDriver } from "./driver-error.ts";
import { type Attribute, computeModes } from "./layouts.ts";
import { toRefusal } from "./refusal.ts";

declare const self: Worker;

let driver: Driver | undefined;

self.onmessage = (event: MessageEvent<DeviceJob>) => {
  self.postMessage(run(event.data));
};

function run(job: DeviceJob): DeviceReply {
  try {
    return { ok: true, value: perform(job) };
  } catch (error) {
    if (!(error instanceof DriverError)) {
      const noDriver = error instanceof NoDriver ? error.reason : undefined;
      return { ok: false, reason: (error as Error).message, noDriver };
    }
    return { ok: false, refusal: toRefusal(error) };
  }
}

function perform(job: DeviceJob): bigint | number | DriverLook {
  switch (job.kind) {
    case "start":
      return 0;
    case "look":
      return look(theDriver());
    case "create":
      return theDriver().create(job.ordinal, job.byteSize);
    case "export":
      return theDriver().exportFd(job.handle as AllocationHandle);
    case "release":
      theDriver().release(job.handle as AllocationHandle);
      return 0;
  }
}

/** @throws NoDriver */
function theDriver(): Driver {
  driver ??= Driver.open();
  return driver;
}

function look(driver: Driver): DriverLook {
  const ordinals = Array.from({ length: driver.deviceCount() }, (_, index) => driver.device(index));
  return { version: driver.version, devices: ordinals.map((ordinal) => lookAt(driver, ordinal)) };
}

function lookAt(driver: Driver, ordinal: number): DriverDevice {
  const ask = (attribute: Attribute) => driver.attribute(ordinal, attribute);
  const hasVmm = ask("virtualMemoryManagement") === 1;
  const hasFdHandles = ask("posixFdHandles") === 1;
  const mode = ask("computeMode");
  return {
    uuid: driver.uuid(ordinal),
    name: driver.name(ordinal),
    ordinal,
    busId: driver.busId(ordinal),
    totalBytes: driver.totalBytes(ordinal),
    computeCapability: `${ask("computeCapabilityMajor")}.${ask("computeCapabilityMinor")}`,
    computeMode: (computeModes as Readonly<Record<number, string>>)[mode] ?? String(mode),
    hasVmm,
    hasFdHandles,
    // It is asked for memory that is handed out so, and refuses to tell where there is no such.
    granularity: hasVmm && hasFdHandles ? driver.granularity(ordinal) : null,
  };
}
