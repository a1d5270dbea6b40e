/** Regions on a device: for each device that can be used one storage, whose memory is a pool of its own. */

import type { StorageEnd } from "../memory/host/capabilities.ts";
import { MemfdNames } from "../memory/storage/memfd/memfd-names.ts";
import type { Memfds } from "../memory/storage/memfd/memfds.ts";
import {
  type DeviceAccess,
  type DeviceForm,
  type OnAllocationStep,
  type Storage,
  toDeviceForm,
} from "../memory/storage/storage.ts";
import type { DeviceCopier } from "./copiers.ts";
import { DeviceBytes } from "./device-bytes.ts";
import { DeviceFiles } from "./device-files.ts";
import { DeviceHandles } from "./device-handles.ts";
import type { DeviceDriver } from "./device-lane.ts";
import { DeviceMemory } from "./device-memory.ts";
import { DeviceNode } from "./device-node.ts";
import { DevicePages } from "./device-pages.ts";
import type { DeviceState } from "./device-state.ts";

export class DeviceStorage implements Storage, Disposable {
  readonly kind = "cuda_vmm";
  readonly form: DeviceForm;
  readonly isMappable = true;
  readonly isPrivate = true;
  readonly hasHeader = false;
  readonly hugePage = null;
  /** No more is promised: that memory outlives a driver's last user by descriptors alone no card has shown yet. */
  readonly endsWith: StorageEnd = "server";
  readonly device: DeviceAccess;
  readonly memory: DeviceMemory;
  readonly names: MemfdNames;
  readonly bytes: DeviceBytes;
  /** Of elastic pools, beside regions. */
  readonly pages: DevicePages;
  readonly #lane: DeviceDriver;
  readonly #copier: DeviceCopier;

  /** @param node the path of its node in /dev, if it is known. */
  constructor(
    device: DeviceState,
    lane: DeviceDriver,
    copier: DeviceCopier,
    memfds: Memfds,
    node: string | undefined,
    onStep?: OnAllocationStep,
  ) {
    const { uuid } = device;
    const form = toDeviceForm(uuid);
    if (form === undefined) throw new Error(`no device is called ${uuid}`);
    this.form = form;
    const files = new DeviceFiles(form, memfds);
    const handles = new DeviceHandles(device, lane, memfds);
    this.device = {
      uuid,
      handleType: "posix_fd",
      get withheld() {
        return device.withheld;
      },
      exportHandle: (token) => handles.export(token),
    };
    const deviceNode = new DeviceNode(uuid, node, memfds);
    this.pages = new DevicePages(device, lane, deviceNode, memfds, () => [...files.all].length === 0);
    this.memory = new DeviceMemory(device, lane, files, handles, deviceNode, this.pages, onStep);
    this.names = new MemfdNames(files);
    const toAllocation = (byteSize: number) => this.memory.toAllocation(byteSize);
    this.bytes = new DeviceBytes(uuid, handles, lane, copier, toAllocation);
    this.#lane = lane;
    this.#copier = copier;
  }

  /** The lane and the copiers are all devices', and may be disposed of again and again. */
  [Symbol.dispose](): void {
    this.#copier[Symbol.dispose]();
    this.#lane[Symbol.dispose]();
  }
}
