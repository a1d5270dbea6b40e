/** What a device that can hold tensors is, as its driver shows it. `src/cuda` finds them. */

export interface Device {
  readonly kind: "cuda";
  /** By which clients name it; null while the driver does not tell. */
  readonly uuid: string | null;
  readonly name: string;
  /** Its PCI address. */
  readonly busId: string;
  /** N of `/dev/nvidia<N>`. */
  readonly minor: number | null;
  /** The driver was told to leave it alone. */
  readonly excluded: boolean;
}

export interface DeviceReport {
  readonly devices: readonly Device[];
  readonly driverVersion: string | null;
  /** Why there is none; null if there is one. */
  readonly reason: string | null;
}
