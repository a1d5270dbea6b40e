/** What a device that can hold tensors is, as its drivers show it. `src/cuda` finds them, and says why one cannot be used. */

/** Why a device cannot be used, or none of them. An open word, a sentence, and what to do. */
export interface DeviceRefusal {
  readonly reason: DeviceRefusalReason;
  readonly detail: string;
  readonly hint: string;
}

export const deviceRefusalReasons = [
  "no-libcuda",
  "driver-too-old",
  "driver-asked",
  "driver-silent",
  "driver-failed",
  "no-device",
  "not-visible",
  "excluded",
  "mig-parent",
  "compute-mode-prohibited",
  "no-vmm",
  "no-fd-handles",
] as const;
export type DeviceRefusalReason = (typeof deviceRefusalReasons)[number];

export interface Device {
  readonly kind: "cuda";
  /** By which clients name it; null while the driver does not tell. */
  readonly uuid: string | null;
  readonly name: string;
  /** Its number in the server's process; null if the driver does not show it there. */
  readonly index: number | null;
  /** Its PCI address. */
  readonly busId: string;
  /** N of `/dev/nvidia<N>`. */
  readonly minor: number | null;
  /** The kernel's driver was told to leave it alone. */
  readonly excluded: boolean;
  /** `9.0`. What follows is null where the driver does not tell. */
  readonly computeCapability: string | null;
  readonly totalBytes: number | null;
  /** What sizes are rounded up to. */
  readonly granularity: number | null;
  readonly hasVmm: boolean | null;
  readonly hasFdHandles: boolean | null;
  /** What a region's memory is handed out as: an open word. */
  readonly handleType: "posix_fd" | null;
  readonly computeMode: string | null;
  /** Whether it is an instance of MIG. */
  readonly isMig: boolean | null;
  /** By NVML alone, as is what follows: null without it. */
  readonly isPersistent: boolean | null;
  readonly freeBytes: number | null;
  /** By all processes. */
  readonly usedBytes: number | null;
  /** null: it can be used. */
  readonly refusal: DeviceRefusal | null;
}

export interface DeviceReport {
  readonly devices: readonly Device[];
  /** The kernel driver's. */
  readonly driverVersion: string | null;
  /** What the driver's library speaks, `13.0`. */
  readonly cudaVersion: string | null;
  /** Why none can be used; null if one can. */
  readonly refusal: DeviceRefusal | null;
}
