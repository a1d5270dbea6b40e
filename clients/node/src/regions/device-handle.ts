/** A region on a device, as a program of JavaScript has it: descriptors and numbers, for the native addon that maps it. */

import "../dispose.ts";
import { inspect } from "node:util";
import { type DeviceStorage, type RegionDescriptor, shown, type TensorInfo, toDeviceStorage } from "../http/wire.ts";
import type { DeviceAttachment } from "../memory/device-attachment.ts";

/** How many tensors `console.log` shows. */
const shownTensorCount = 8;

/**
 * A region in the memory of a device, leased by this process and **not mapped**: no runtime of JavaScript reaches a device's
 * memory. A native addon imports `fd` on the device `deviceUuid` as its driver wants it (CUDA, `posix_fd`:
 * `cuMemImportFromShareableHandle`), maps all `allocationBytes` at a multiple of `granularity`, and finds the tensors by their
 * `byteOffset` from there. Import it for reading unless `isWritable`: nothing but that agreement keeps a sealed region as it is.
 *
 * Made by `attachOnDevice` and `createOnDevice`; close it **after** the addon has unmapped the memory, or declare it with `using`. The lease lasts until
 * then, or until this thread or process ends, however it ends. Once `fd` was asked for, the collector does not end it: nobody
 * can see whether the memory is mapped.
 */
export class DeviceHandle {
  readonly #attachment: DeviceAttachment;
  readonly #storage: DeviceStorage;
  readonly #isCreated: boolean;
  /** What the server said at the attach. */
  readonly descriptor: RegionDescriptor;
  /** All tensors by name, in the region's order. Their `byteOffset` counts from the first byte of the memory. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;

  constructor(descriptor: RegionDescriptor, attachment: DeviceAttachment, isCreated: boolean) {
    this.#attachment = attachment;
    this.#isCreated = isCreated;
    this.#storage = toDeviceStorage(descriptor);
    this.descriptor = descriptor;
    this.tensors = new Map(descriptor.tensors.map((info) => [info.name, info]));
  }

  get id(): string {
    return this.descriptor.id;
  }

  get name(): string | null {
    return this.descriptor.name;
  }

  /** Whether this call made the region; false if it was found, also through `ifExists: "attach"`. */
  get isCreated(): boolean {
    return this.#isCreated;
  }

  /** The device's UUID, the same for every process: `GPU-…`. */
  get deviceUuid(): string {
    return this.#storage.deviceUuid;
  }

  /** What `fd` is to the driver: `posix_fd`, or what a newer server has. */
  get handleType(): string {
    return this.#storage.handleType;
  }

  /** What the tensors take. */
  get byteSize(): number {
    return this.descriptor.storage.byteSize;
  }

  /** What has to be mapped, all of it. */
  get allocationBytes(): number {
    return this.#storage.allocationBytes;
  }

  /** What addresses and sizes of its mappings are multiples of. */
  get granularity(): number {
    return this.#storage.granularity;
  }

  /** Whether it was attached for writing: while it is open, the region cannot be sealed. */
  get isWritable(): boolean {
    return this.#attachment.access === "write";
  }

  get isClosed(): boolean {
    return this.#attachment.isClosed;
  }

  /**
   * The driver's descriptor, which `close` closes: import it before. It is closed on exec.
   * @throws TensordError `closed`, after `takeFd` as well
   */
  get fd(): number {
    return this.#attachment.fd;
  }

  /**
   * Hands the driver's descriptor over to the caller, who closes it. The lease stays with this object, which is closed when the
   * memory is unmapped. @throws TensordError `closed`, the second time as well
   */
  takeFd(): number {
    return this.#attachment.takeFd();
  }

  /** Ends the lease, and closes `fd` unless it was taken. Safe to call twice. */
  close(): void {
    this.#attachment.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** As `console.log` shows it, with its tensors' dtypes and shapes. */
  [inspect.custom](): string {
    const all = this.descriptor.tensors;
    const shownTensors = all
      .slice(0, shownTensorCount)
      .map(({ name, dtype, shape }) => `${JSON.stringify(name)}: ${dtype} [${shape.join(", ")}]`);
    const more = all.length > shownTensorCount ? [`and ${all.length - shownTensorCount} more`] : [];
    const states = [this.descriptor.state, ...(this.isClosed ? ["closed here"] : this.isWritable ? ["writable"] : [])];
    const listed = [...shownTensors, ...more].join(", ");
    return `DeviceHandle of ${shown(this.descriptor)} on ${this.deviceUuid}, ${states.join(", ")} { ${listed} }`;
  }
}
