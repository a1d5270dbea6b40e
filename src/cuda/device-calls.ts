/**
 * What the server asks of a device's driver, and how the driver's Worker answers. None of it needs a context, so that an idle server
 * takes no memory of a device.
 */

import type { NoDriverReason } from "./driver-error.ts";

/** A device as its driver tells of it. */
export interface DriverDevice {
  readonly uuid: string;
  readonly name: string;
  /** Its number in this process; another process may have another for it. */
  readonly ordinal: number;
  /** Its PCI address. An instance of MIG has that of its GPU. */
  readonly busId: string;
  readonly totalBytes: number;
  /** `9.0`. */
  readonly computeCapability: string;
  /** One of `computeModes`, or a number that has no name here. */
  readonly computeMode: string;
  /** Whether its memory can be made in pieces of our own. */
  readonly hasVmm: boolean;
  /** Whether that can be handed to other processes as a descriptor. */
  readonly hasFdHandles: boolean;
  /** What sizes are rounded up to; null where it has no such pieces. */
  readonly granularity: number | null;
}

/** A device on which regions can be made. */
export interface UsableDevice extends Pick<DriverDevice, "uuid" | "name" | "ordinal" | "totalBytes"> {
  readonly granularity: number;
}

/** All that the driver shows this process. */
export interface DriverLook {
  /** As the driver counts: 13000 is CUDA 13.0. */
  readonly version: number;
  readonly devices: readonly DriverDevice[];
}

export type DeviceJob =
  /** Only whether the Worker is up: no driver is called. */
  | { readonly kind: "start" }
  /** Starts the driver, if need be, and asks for all of its devices. */
  | { readonly kind: "look" }
  /** Memory of `byteSize` bytes: the driver's handle of it. */
  | { readonly kind: "create"; readonly ordinal: number; readonly byteSize: number }
  /** A descriptor of that memory, which is open in this process. */
  | { readonly kind: "export"; readonly handle: bigint }
  | { readonly kind: "release"; readonly handle: bigint };

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
  | { readonly ok: true; readonly value: bigint | number | DriverLook }
  | { readonly ok: false; readonly refusal: DriverRefusal }
  /** Whatever else went wrong, in a sentence; and why there is no driver to call, if that is it. */
  | { readonly ok: false; readonly reason: string; readonly noDriver: NoDriverReason | undefined };
