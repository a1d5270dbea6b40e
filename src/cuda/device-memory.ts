/**
 * Memory of one device: one allocation of the driver's a region, whole pages of its granularity. Whether somebody maps it the lease file
 * says. That a mapping is read-only is an agreement between clients: the driver's descriptor carries no such word.
 */

import { roundUpToPage } from "../memory/host/capacity.ts";
import type { DataAccess } from "../memory/storage/data-file.ts";
import type { Access, Identity, Memory, OnAllocationStep, Segment, Space, Usage } from "../memory/storage/storage.ts";
import type { DeviceFiles } from "./device-files.ts";
import { type DeviceHandles, parseHandleName } from "./device-handles.ts";
import type { DeviceDriver } from "./device-lane.ts";
import type { DeviceNode } from "./device-node.ts";
import type { DevicePages } from "./device-pages.ts";
import type { DeviceState } from "./device-state.ts";

export class DeviceMemory implements Memory {
  /** Pools of devices are called by their UUIDs. */
  readonly pool: string;
  /** Of the host's memory it takes none. */
  readonly elsewhereBytes = 0;
  readonly #device: DeviceState;
  readonly #files: DeviceFiles;
  readonly #handles: DeviceHandles;
  readonly #node: DeviceNode;
  readonly #pages: DevicePages;
  readonly #lane: DeviceDriver;
  readonly #onStep: OnAllocationStep | undefined;
  /** What frees memory, until it has: the driver is never told twice. */
  readonly #freeing = new Map<string, Promise<void>>();
  /** Nobody's memory, which the driver did not take back. */
  readonly #owed = new Set<string>();

  constructor(
    device: DeviceState,
    lane: DeviceDriver,
    files: DeviceFiles,
    handles: DeviceHandles,
    node: DeviceNode,
    pages: DevicePages,
    onStep: OnAllocationStep | undefined,
  ) {
    this.pool = device.uuid;
    this.#device = device;
    this.#lane = lane;
    this.#files = files;
    this.#handles = handles;
    this.#node = node;
    this.#pages = pages;
    this.#onStep = onStep;
  }

  get pageSize(): number {
    return this.#device.granularity;
  }

  /** What others use of it nobody tells without a context there, so all that is not ours counts as free. */
  space(): Space {
    const { totalBytes } = this.#device;
    let usedBytes = this.#pages.byteSize;
    for (const [, { byteSize }] of this.#files.all) usedBytes += this.toAllocation(byteSize);
    return { totalBytes, usedBytes, freeBytes: Math.max(0, totalBytes - usedBytes), usedInodes: 0, freeInodes: 0 };
  }

  /** What a region of so many bytes takes: there is no memory of no bytes. */
  toAllocation(byteSize: number): number {
    return roundUpToPage(Math.max(1, byteSize), this.pageSize);
  }

  async allocate({ token, byteSize, header }: Segment, signal: AbortSignal): Promise<Identity> {
    if (header.length > 0) throw new Error("memory on a device has no header");
    this.#freeOwed();
    const identity = this.#files.create(token, byteSize);
    this.#onStep?.("create.file-made");
    await this.#handles.create(token, this.toAllocation(byteSize), signal);
    this.#onStep?.("create.window-allocated");
    signal.throwIfAborted();
    await this.#node.keep();
    await this.#handles.keep(token);
    this.#onStep?.("create.header-written");
    // The lease file last: with it all of the region is kept, and what has no row by the next start is freed there.
    await this.#files.memfds.holder?.keep(token, this.#files.get(token).fd);
    return identity;
  }

  async discard(token: string): Promise<void> {
    if (this.#files.memfds.find(token)?.isKept === true) return;
    try {
      await this.free(token);
    } catch (error) {
      // It is in no books any more, and so nobody asks for it again.
      this.#owed.add(token);
      throw error;
    }
  }

  /** Tries again what failed, before more is asked of the driver. */
  #freeOwed(): void {
    for (const token of this.#owed) {
      this.#owed.delete(token);
      void this.discard(token).catch(() => {});
    }
  }

  /** Halves of regions too: a server died between keeping memory and its lease file, or while it freed them. */
  async discardAll(): Promise<void> {
    for (const [token, memfd] of [...this.#files.all]) {
      if (!this.#handles.has(token)) memfd.isKept = false;
      await this.discard(token);
    }
    for (const name of this.#files.memfds.others) {
      const token = parseHandleName(name);
      // Of another device's lease files there may be some that this server has no storage for.
      if (token !== undefined && this.#files.memfds.find(token) === undefined) await this.#handles.free(token);
    }
    await this.#letNodeGo();
  }

  usage(token: string): Usage | undefined {
    return this.#files.usage(token);
  }

  openDescription(token: string, access: DataAccess): number {
    return this.#files.open(token, access);
  }

  descriptionPath(token: string): string {
    return `/proc/self/fd/${this.#files.get(token).fd}`;
  }

  setAccess(token: string, access: Access): void {
    this.#files.setAccess(token, access);
  }

  /** No driver has a word for it. */
  async seal(): Promise<boolean> {
    return true;
  }

  /** The memory first: a lease file without it is what a start knows as a region that was being freed. */
  async free(token: string): Promise<"freed"> {
    const freeing = this.#freeing.get(token) ?? this.#free(token);
    this.#freeing.set(token, freeing);
    const forget = () => this.#freeing.delete(token);
    freeing.then(forget, forget);
    await this.#lane.within(`free memory of device ${this.pool}`, freeing);
    return "freed";
  }

  async #free(token: string): Promise<void> {
    await this.#handles.free(token);
    await this.#files.remove(token);
    await this.#letNodeGo();
  }

  async #letNodeGo(): Promise<void> {
    await this.#node.letGo(() => [...this.#files.all].length === 0 && this.#pages.isEmpty);
  }
}
