/** What a server tells of itself and its host, put together for the routes: capabilities, devices, diagnosis, metrics. */

import { Doctor, type DoctorParts } from "../memory/doctor/doctor.ts";
import { readCapabilities } from "../memory/host/capabilities.ts";
import type { OpenStore } from "../memory/start/open-store.ts";
import type { Host } from "../routes/environment.ts";
import type { Metrics } from "./metrics.ts";

export interface HostParts extends Pick<OpenStore, "store" | "directory" | "holder"> {
  readonly settingBytes: number | undefined;
  /** Where the server listens, now. */
  readonly urls: () => readonly string[];
  /** Where the broker listens, now. */
  readonly brokerPath: () => string | null;
  /** What else TCP may be called. */
  readonly allowedHosts: readonly string[];
  readonly metrics: Metrics;
  readonly descriptors: DoctorParts["descriptors"];
  readonly undisturbed: DoctorParts["undisturbed"];
  readonly devices: DoctorParts["devices"];
}

/** A host whose Worker can be brought up before the first question. */
export interface StartingHost extends Host, Disposable {
  start(): Promise<void>;
}

export function createHost({ metrics, ...parts }: HostParts): StartingHost {
  const doctor = new Doctor(parts);
  return {
    brokerPath: parts.brokerPath,
    capabilities: async () => readCapabilities(parts.directory.shmDirectory),
    devices: parts.devices,
    start: () => doctor.start(),
    [Symbol.dispose]: () => doctor[Symbol.dispose](),
    diagnose: () => doctor.diagnose(),
    metrics: (accept) => metrics.render(accept),
  };
}
