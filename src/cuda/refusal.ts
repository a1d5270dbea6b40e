/** A failed call of the driver as it travels to another thread or process, and the failure of the table that is made of it there. */

import { closeSync, openSync } from "node:fs";
import { TensordError } from "../memory/error.ts";
import { outOfDescriptors } from "../memory/os/descriptors.ts";
import type { DriverRefusal } from "./device-calls.ts";
import { type DriverError, results } from "./driver-error.ts";

/** To be called at once, in the process whose call it was. */
export function toRefusal({ call, result, code, message }: DriverError): DriverRefusal {
  return { call, result, code, message, errno: findLack() };
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

/**
 * What ran out of descriptors may call itself out of memory, so that is seen first.
 * @param what was tried: "allocate …".
 * @param requestedBytes of the device; null: it was no memory that was asked for, and undefined: nobody knows how much.
 */
export function toRefused(
  { result, code, message, errno }: DriverRefusal,
  what: string,
  requestedBytes: number | null | undefined,
  cause: unknown,
): TensordError {
  if (errno !== null) return outOfDescriptors(`Cannot ${what}`, { cause });
  if (result === results.outOfMemory && requestedBytes !== null) {
    return new TensordError(
      "out-of-device-memory",
      `Cannot ${what}: the driver has not so much free (${code})`,
      {
        ...(requestedBytes === undefined ? {} : { requested_bytes: requestedBytes }),
        hint: "Other processes use the device, too (nvidia-smi lists them). Delete regions on it, or use another.",
      },
      { cause },
    );
  }
  return new TensordError(
    "io-error",
    `Cannot ${what}: ${message}`,
    { hint: "See how the device is: the kernel's log (dmesg, NVRM) and nvidia-smi say so." },
    { cause },
  );
}

export function tooLate(what: string, answerMs: number): TensordError {
  return new TensordError(
    "deadline-exceeded",
    `Cannot ${what}: the device's driver has not answered for ${answerMs} ms`,
    {
      hint: "Ask again in a while. If it goes on, the device or its driver hangs: see the kernel's log (dmesg, NVRM), and reset the device.",
    },
  );
}
