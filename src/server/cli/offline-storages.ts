/** What an instance's memory is, whose server is not running: what lies in its keeper, and what its fd holder keeps. */

import type { DeviceCopier } from "../../cuda/copiers.ts";
import type { DeviceDriver } from "../../cuda/device-lane.ts";
import { DeviceState } from "../../cuda/device-state.ts";
import { DeviceStorage } from "../../cuda/device-storage.ts";
import { HeldDescriptors } from "../../memory/storage/fd-holder/held-descriptors.ts";
import { FileStorage } from "../../memory/storage/file/file-storage.ts";
import type { InstanceDirectory } from "../../memory/storage/instance-directory.ts";
import { HostLanes } from "../../memory/storage/lane.ts";
import { openMemfdStorages } from "../../memory/storage/memfd/memfd-storage.ts";
import { Memfds } from "../../memory/storage/memfd/memfds.ts";
import { ShmStorage } from "../../memory/storage/shm/shm-storage.ts";
import { toDeviceUuid } from "../../memory/storage/storage.ts";
import { Storages } from "../../memory/storage/storages.ts";

export interface OfflineStorages extends Disposable {
  /** With files. */
  readonly shm: readonly [ShmStorage, ...ShmStorage[]];
  /** Which only points at files. */
  readonly files: FileStorage;
  /** All of them. */
  readonly storages: Storages;
  /** Asked as by somebody who only looks: its time runs on. */
  readonly holder: HeldDescriptors;
}

/**
 * @param directory of the instance, whose lock is ours by that.
 * @throws TensordError if there is an fd holder that does not answer.
 */
export async function openOfflineStorages(directory: InstanceDirectory): Promise<OfflineStorages> {
  using opened = new DisposableStack();
  const lanes = opened.use(new HostLanes());
  const holder = opened.use(new HeldDescriptors({ place: directory, ttlMs: undefined, onWarning: () => {} }));
  const memfds = opened.use(await Memfds.open(directory.instance, holder));
  const shm = [new ShmStorage(directory, lanes), new ShmStorage(directory, lanes, { isPrivate: true })] as const;
  const onDevices = [...memfds.deviceForms].map(toDeviceUuid).map((uuid) => toDeviceStorage(uuid, memfds));
  const files = new FileStorage(directory, lanes, []);
  const storages = new Storages([...shm, files, ...openMemfdStorages(memfds, lanes), ...onDevices]);
  const all = opened.move();
  return { shm, files, storages, holder, [Symbol.dispose]: () => all.dispose() };
}

/** What the fd holder has of a device. Its driver is not asked for a look: nothing is made there, nor freed. */
function toDeviceStorage(uuid: string, memfds: Memfds): DeviceStorage {
  const state = new DeviceState(uuid, { isForNow: false, reason: "no server runs" });
  return new DeviceStorage(state, untouched, unused, memfds, undefined);
}

const never = () => Promise.reject(new Error("nobody asks a device's driver for a look"));
const unused: DeviceCopier = { run: never, [Symbol.dispose]: () => {} };
const untouched: DeviceDriver = {
  create: never,
  export: never,
  release: never,
  close: never,
  within: never,
  [Symbol.dispose]: () => {},
};
