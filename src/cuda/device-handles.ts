/**
 * The driver's memory behind the regions of one device, or behind the pages of its elastic pools, which are called by tokens alike. What this server made it has as a handle, of which the driver makes descriptors on demand;
 * what an earlier one made, as the descriptor that the fd holder kept.
 */

import { TensordError } from "../memory/error.ts";
import { toRegionId } from "../memory/naming.ts";
import { toOutOfDescriptors, withSpare } from "../memory/os/descriptors.ts";
import { duplicateDescriptor } from "../memory/os/libc.ts";
import type { Memfds } from "../memory/storage/memfd/memfds.ts";
import type { DeviceDriver } from "./device-lane.ts";
import type { DeviceState } from "./device-state.ts";

/** What the fd holder calls the descriptor of a region's memory; the region's lease file has the token alone. */
export function toHandleName(token: string): string {
  return `${token}.device`;
}

/** The token of the region that a name of `toHandleName` is of. */
export function parseHandleName(name: string): string | undefined {
  return /^([a-z2-7]{26})\.device$/.exec(name)?.[1];
}

/** How tokens of handles look elsewhere. */
export interface HandleNames {
  /** To the fd holder. */
  toName(token: string): string;
  /** In a sentence. */
  describe(token: string): string;
}

export const regionHandles: HandleNames = { toName: toHandleName, describe: toRegionId };

export class DeviceHandles {
  readonly #device: DeviceState;
  readonly #lane: DeviceDriver;
  readonly #memfds: Memfds;
  readonly #names: HandleNames;
  readonly #handles = new Map<string, bigint>();

  constructor(device: DeviceState, lane: DeviceDriver, memfds: Memfds, names = regionHandles) {
    this.#device = device;
    this.#names = names;
    this.#lane = lane;
    this.#memfds = memfds;
  }

  has(token: string): boolean {
    return this.#handles.has(token) || this.#memfds.findOther(this.#names.toName(token)) !== undefined;
  }

  /** @throws TensordError as `DeviceDriver.create`. */
  async create(token: string, byteSize: number, signal: AbortSignal): Promise<void> {
    this.#handles.set(token, await this.#lane.create(this.#device.usable, byteSize, signal));
  }

  /** Has the fd holder keep it, if there is one. @throws TensordError as `FdHolder.keep`, and `DeviceDriver.export`. */
  async keep(token: string): Promise<void> {
    await this.#memfds.holder?.keep(this.#names.toName(token), () => this.export(token));
  }

  /** A descriptor of the memory, the caller's to close. @throws TensordError. */
  async export(token: string): Promise<number> {
    const handle = this.#handles.get(token);
    if (handle !== undefined) return await this.#lane.export(this.#device.uuid, handle);
    const kept = this.#memfds.findOther(this.#names.toName(token));
    if (kept === undefined) throw gone(this.#names.describe(token));
    try {
      return withSpare(() => duplicateDescriptor(kept));
    } catch (error) {
      throw toOutOfDescriptors(error) ?? error;
    }
  }

  /** Frees memory, if it has some; the fd holder lets go first. Not to be called again before it ended. @throws TensordError. */
  async free(token: string): Promise<void> {
    const name = this.#names.toName(token);
    const handle = this.#handles.get(token);
    if (this.has(token)) await this.#memfds.holder?.drop(name);
    if (handle !== undefined) {
      await this.#lane.release(this.#device.uuid, handle);
      this.#handles.delete(token);
    }
    const kept = this.#memfds.takeOther(name);
    if (kept !== undefined) await this.#lane.close(kept);
  }
}

function gone(what: string): TensordError {
  return new TensordError("io-error", `Cannot hand out the memory of ${what}: nobody has it`, {
    hint: "Give it up and create it again.",
  });
}
