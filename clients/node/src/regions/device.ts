/** Makes and attaches regions on a device: leased and reported as any other, and not mapped. */

import { TensordError } from "../errors.ts";
import { isHandOff, isOnDevice, type RegionDescriptor, shown, toDeviceStorage } from "../http/wire.ts";
import { DeviceAttachment } from "../memory/device-attachment.ts";
import { type CreateOnDeviceOptions, defaultModel } from "../options.ts";
import type { WaitOptions } from "../waiting.ts";
import type { Asker } from "./asker.ts";
import { DeviceHandle } from "./device-handle.ts";
import { holdKept } from "./keep.ts";
import { orDeleted, requestRegion } from "./make-region.ts";
import { checkStanding, mapAnew } from "./mapper.ts";
import { type DeviceTensors, toEmptySources, toSpecs } from "./sources.ts";
import { standingAt } from "./standing.ts";

interface HoldingOnDevice extends WaitOptions {
  /** Gets the descriptor anew. */
  readonly ask: () => Promise<RegionDescriptor>;
  readonly isWriter: boolean;
  /** Whether this process is its maker. */
  readonly isMaker?: boolean;
}

/** `client.createOnDevice`. */
export async function makeOnDevice(
  asker: Asker,
  name: string | null,
  tensors: DeviceTensors,
  options: CreateOnDeviceOptions,
): Promise<DeviceHandle> {
  const { model = defaultModel, ifExists = "fail", version, deviceUuid, evictable, onFull, deadlineMs } = options;
  const wanted = {
    ...{ model, name: name ?? undefined, version, storage: "cuda_vmm" as const, deviceUuid, ifExists },
    ...{ tensors: toSpecs(toEmptySources(tensors)), evictable, onFull, deadlineMs, labels: options.labels },
  };
  const { region, isCreated } = await requestRegion(asker, wanted, options);
  const holding = { ask: () => asker.api.region(region.id), signal: options.signal };
  if (!isCreated) return holdOnDevice(asker, region, { ...holding, isWriter: region.state === "open" });
  return orDeleted(asker.api, region, () => holdOnDevice(asker, region, { ...holding, isWriter: true, isMaker: true }));
}

/**
 * Holds a region on a device, and tells the session of it.
 * @throws TensordError `feature-unavailable` of one in host memory; what the broker says
 */
export async function holdOnDevice(
  asker: Asker,
  first: RegionDescriptor,
  { ask, isWriter, isMaker = false, signal }: HoldingOnDevice,
): Promise<DeviceHandle> {
  const { session } = asker;
  const access = isWriter ? "write" : "strict";
  const hold = async (region: RegionDescriptor) => {
    checkOnDevice(region);
    checkStanding(region, access);
    toDeviceStorage(region);
    const { kind: storage, dev, ino, makerByte } = region.storage;
    const role = isMaker && makerByte === true ? "maker" : "consumer";
    // The lease file has no name, and no byte.
    const place = standingAt(asker, { region: region.id, storage, path: null, dev, ino, byteSize: 0, role });
    const opening = { isWriter, isOnDevice: true, signal };
    return {
      region,
      attachment: await holdKept(session, place, opening, (file) => new DeviceAttachment(file, access)),
    };
  };
  const { region, attachment } = await mapAnew(
    [first],
    async () => [await ask()],
    ([each]) => hold(each as RegionDescriptor),
  );
  session?.report(attachment, isHandOff(region));
  session?.openSoon();
  return new DeviceHandle(region, attachment, isMaker);
}

function checkOnDevice(region: RegionDescriptor): void {
  const { kind } = region.storage;
  if (isOnDevice(kind)) return;
  const detail = `Cannot attach ${shown(region)} on a device: its storage is ${kind}, want cuda_vmm`;
  throw new TensordError("feature-unavailable", detail, { hint: "map it: client.attach(name)" });
}
