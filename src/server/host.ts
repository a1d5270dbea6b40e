/** What a server tells of itself and its host, put together for the routes: capabilities, devices, diagnosis, metrics. */

import { readDevices } from "../cuda/devices.ts";
import { Doctor } from "../memory/doctor/doctor.ts";
import { readCapabilities } from "../memory/host/capabilities.ts";
import type { OpenStore } from "../memory/start/open-store.ts";
import type { Host } from "../routes/environment.ts";
import type { Metrics } from "./metrics.ts";

export interface HostParts extends Pick<OpenStore, "store" | "directory"> {
  readonly settingBytes: number | undefined;
  /** Where the server listens, now. */
  readonly urls: () => readonly string[];
  /** What else TCP may be called. */
  readonly allowedHosts: readonly string[];
  readonly metrics: Metrics;
}

export function createHost({ metrics, ...parts }: HostParts): Host {
  const doctor = new Doctor(parts);
  return {
    capabilities: () => readCapabilities(parts.directory.shmDirectory),
    devices: () => readDevices(),
    diagnose: () => doctor.diagnose(),
    metrics: (accept) => metrics.render(accept),
  };
}
