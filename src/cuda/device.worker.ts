/** The Worker behind a device lane: makes one call of the driver at a time and answers with what came of it. It decides nothing. */

import { closeSync, openSync } from "node:fs";
import type { DeviceJob, DeviceReply, UsableDevice } from "./device-calls.ts";
import { type AllocationHandle, Driver } from "./driver.ts";
import { DriverError, NoDriver } from "./driver-error.ts";

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
    const { call, result, code, message } = error;
    return { ok: false, refusal: { call, result, code, message, errno: findLack() } };
  }
}

function perform(job: DeviceJob): bigint | number | readonly UsableDevice[] {
  switch (job.kind) {
    case "close":
      closeSync(job.fd);
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

function look(driver: Driver): readonly UsableDevice[] {
  const ordinals = Array.from({ length: driver.deviceCount() }, (_, index) => driver.device(index));
  return ordinals
    .filter((ordinal) => hasExports(driver, ordinal))
    .map((ordinal) => ({
      uuid: driver.uuid(ordinal),
      name: driver.name(ordinal),
      ordinal,
      totalBytes: driver.totalBytes(ordinal),
      granularity: driver.granularity(ordinal),
    }));
}

/** Whether memory there can be made in pieces of our own, and handed to other processes. */
function hasExports(driver: Driver, ordinal: number): boolean {
  return (
    driver.attribute(ordinal, "virtualMemoryManagement") === 1 && driver.attribute(ordinal, "posixFdHandles") === 1
  );
}

/** A driver that gets no descriptor calls that out of memory, or an error of the system. */
function findLack(): "EMFILE" | "ENFILE" | null {
  try {
    closeSync(openSync("/dev/null", "r"));
    return null;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return code === "EMFILE" || code === "ENFILE" ? code : null;
  }
}
