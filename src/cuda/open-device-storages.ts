/** Every storage of device memory that this host has, or why it has none. A host without a driver pays for it with one look of the loader. */

import type { MoreStorages, StorageParts } from "../memory/start/open-store.ts";
import type { UsableDevice } from "./device-calls.ts";
import { DeviceLane, type LaneOptions } from "./device-lane.ts";
import { DeviceStorage } from "./device-storage.ts";
import { readDevices } from "./devices.ts";
import { NoDriver } from "./driver-error.ts";
import { openLibcuda } from "./libcuda.ts";

export interface DeviceOptions extends LaneOptions {
  /** The path of a device's node in /dev; tests have another. */
  readonly nodeOf?: (uuid: string) => string | undefined;
}

/** Never throws: without a device the server is whole but for that. */
export async function openDeviceStorages(parts: StorageParts, options: DeviceOptions = {}): Promise<MoreStorages> {
  const lane = new DeviceLane(options);
  try {
    // No thread is started for a driver that is not there.
    openLibcuda();
    const devices = await lane.look();
    const storages = devices.map((device) => toStorage(device, lane, parts, options));
    if (storages.length > 0) return { storages };
    lane[Symbol.dispose]();
    return absent("the driver shows no device whose memory can be handed to other processes");
  } catch (error) {
    lane[Symbol.dispose]();
    if (!(error instanceof NoDriver)) parts.onWarning("Cannot use device memory", error);
    return absent((error as Error).message);
  }
}

function toStorage(
  device: UsableDevice,
  lane: DeviceLane,
  { memfds, onStep }: StorageParts,
  { nodeOf = findNode }: DeviceOptions,
): DeviceStorage {
  return new DeviceStorage(device, lane, memfds, nodeOf(device.uuid), onStep);
}

function absent(reason: string): MoreStorages {
  return { storages: [], absences: { cuda_vmm: reason } };
}

function findNode(uuid: string): string | undefined {
  const minor = readDevices().devices.find((device) => device.uuid === uuid)?.minor ?? null;
  return minor === null ? undefined : `/dev/nvidia${minor}`;
}
