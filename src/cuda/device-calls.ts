/**
 * What the server asks of a device's driver, and how the driver's Worker answers. None of it needs a context, so that an idle server
 * takes no memory of a device.
 */

import type { NoDriverReason } from "./driver-error.ts";

/** A device on which regions can be made, as its driver tells of it. */
export interface UsableDevice {
  readonly uuid: string;
  readonly name: string;
  /** Its number in this process; another process may have another for it. */
  readonly ordinal: number;
  readonly totalBytes: number;
  /** What sizes are rounded up to. */
  readonly granularity: number;
}

export type DeviceJob =
  /** The devices that can be used. */
  | { readonly kind: "look" }
  /** Memory of `byteSize` bytes: the driver's handle of it. */
  | { readonly kind: "create"; readonly ordinal: number; readonly byteSize: number }
  /** A descriptor of that memory, which is open in this process. */
  | { readonly kind: "export"; readonly handle: bigint }
  | { readonly kind: "release"; readonly handle: bigint }
  /** The last descriptor of memory frees it, and takes its time. */
  | { readonly kind: "close"; readonly fd: number };

/** A call of the driver that failed, on its way from one thread to another. */
export interface DriverRefusal {
  readonly call: string;
  /** CUresult. */
  readonly result: number;
  /** The driver's name of it. */
  readonly code: string;
  /** In the driver's words. */
  readonly message: string;
  /** Whether this process, or the machine, had no descriptor left just after that. */
  readonly errno: "EMFILE" | "ENFILE" | null;
}

export type DeviceReply =
  | { readonly ok: true; readonly value: bigint | number | readonly UsableDevice[] }
  | { readonly ok: false; readonly refusal: DriverRefusal }
  /** Whatever else went wrong, in a sentence; and why there is no driver to call, if that is it. */
  | { readonly ok: false; readonly reason: string; readonly noDriver: NoDriverReason | undefined };
