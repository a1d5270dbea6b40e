/** What NVIDIA's management library (NVML) is asked, and how its Worker answers. */

/** Of one device; null is what NVML does not tell of it. */
export interface NvmlDevice {
  /** Whether the driver keeps the GPU up while nobody uses it. */
  readonly isPersistent: boolean | null;
  readonly freeBytes: number | null;
  /** By all processes, and the driver itself. */
  readonly usedBytes: number | null;
  /** Whether it is divided by MIG. */
  readonly isDivided: boolean | null;
}

/** UUIDs of devices; null: only whether the Worker is up. */
export type NvmlJob = readonly string[] | null;

/** Those that NVML knows. None where it does not start. */
export type NvmlReply = readonly (readonly [uuid: string, device: NvmlDevice])[];
