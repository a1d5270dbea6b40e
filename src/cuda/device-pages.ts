/**
 * Pages of elastic pools in the memory of one device: one allocation of the driver's each, kept by the fd holder as long as that has room for them. It
 * knows no pools: a page is a token and a number.
 */

import { TensordError } from "../memory/error.ts";
import { limits } from "../memory/limits.ts";
import { readDescriptorLimit } from "../memory/os/libc.ts";
import type { Memfds } from "../memory/storage/memfd/memfds.ts";
import { DeviceHandles } from "./device-handles.ts";
import type { DeviceDriver } from "./device-lane.ts";
import type { DeviceNode } from "./device-node.ts";
import type { DeviceState } from "./device-state.ts";

/** A page of the pool with this token. */
export interface PageName {
  readonly pool: string;
  readonly page: number;
}

/** What the fd holder calls its descriptor. */
export function toPageName(token: string): string {
  return `${token}.page`;
}

/** The page that a name of `toPageName` is of. */
export function parsePageName(name: string): PageName | undefined {
  const [, pool, page] = /^([a-z2-7]{26})\.(\d{1,16})\.page$/.exec(name) ?? [];
  return pool === undefined ? undefined : { pool, page: Number(page) };
}

function toToken({ pool, page }: PageName): string {
  return `${pool}.${page}`;
}

export class DevicePages {
  readonly device: DeviceState;
  readonly #lane: DeviceDriver;
  readonly #node: DeviceNode;
  readonly #memfds: Memfds;
  readonly #hasNoRegions: () => boolean;
  readonly #handles: DeviceHandles;
  /** What each takes, by token, those of an earlier server among them. */
  readonly #sizes = new Map<string, number>();
  /** What frees a page, until it has: the driver is never told twice. */
  readonly #freeing = new Map<string, Promise<void>>();
  readonly #kept = new Set<string>();
  /** Pages that there was no room for, by pool; of one that has none there is nothing. */
  readonly #unkept = new Map<string, Set<number>>();

  constructor(device: DeviceState, lane: DeviceDriver, node: DeviceNode, memfds: Memfds, hasNoRegions: () => boolean) {
    this.device = device;
    this.#lane = lane;
    this.#node = node;
    this.#memfds = memfds;
    this.#hasNoRegions = hasNoRegions;
    this.#handles = new DeviceHandles(device, lane, memfds, {
      toName: toPageName,
      describe: (token) => `page ${token.slice(token.indexOf(".") + 1)}`,
    });
  }

  /** Whether there are none, and none that an earlier server left and nobody has asked for yet. */
  get isEmpty(): boolean {
    return this.#sizes.size === 0 && !this.#memfds.others.some((name) => parsePageName(name) !== undefined);
  }

  /** What all of them take. */
  get byteSize(): number {
    let sum = 0;
    for (const byteSize of this.#sizes.values()) sum += byteSize;
    return sum;
  }

  /** Whether the fd holder, if there is one, keeps every page of a pool. */
  keepsAll(pool: string): boolean {
    return this.#memfds.holder !== undefined && !this.#unkept.has(pool);
  }

  /** @throws TensordError as `DeviceDriver.create`. */
  async create(name: PageName, byteSize: number, signal: AbortSignal): Promise<void> {
    const token = toToken(name);
    await this.#handles.create(token, byteSize, signal);
    this.#sizes.set(token, byteSize);
  }

  /**
   * Has the fd holder keep it, if there is one. Where descriptors are scarce the page is made all the same, and ends with this server.
   * @throws TensordError `io-error`, `deadline-exceeded`.
   */
  async keep(name: PageName): Promise<void> {
    const token = toToken(name);
    const { soft } = readDescriptorLimit();
    const most = (soft * BigInt(limits.memfdDescriptorsPercent)) / 100n;
    if (BigInt(this.#kept.size) >= most) return this.#leaveUnkept(name);
    try {
      await this.#node.keep();
      await this.#handles.keep(token);
      this.#kept.add(token);
    } catch (error) {
      if (!(error instanceof TensordError) || error.code !== "out-of-descriptors") throw error;
      this.#leaveUnkept(name);
    }
  }

  #leaveUnkept({ pool, page }: PageName): void {
    this.#unkept.set(pool, (this.#unkept.get(pool) ?? new Set()).add(page));
  }

  /** Whether an earlier server's page is there. From here on it is known. */
  find(name: PageName, byteSize: number): boolean {
    const token = toToken(name);
    if (!this.#handles.has(token)) return false;
    this.#sizes.set(token, byteSize);
    this.#kept.add(token);
    return true;
  }

  /** A descriptor of the page, the caller's to close. @throws TensordError as `DeviceDriver.export`. */
  export(name: PageName): Promise<number> {
    return this.#handles.export(toToken(name));
  }

  /**
   * Frees it, if it is there. A call that takes too long goes on, and is what the next call waits for.
   * @throws TensordError.
   */
  async free(name: PageName): Promise<void> {
    const token = toToken(name);
    const freeing = this.#freeing.get(token) ?? this.#free(name);
    this.#freeing.set(token, freeing);
    const forget = () => this.#freeing.delete(token);
    freeing.then(forget, forget);
    await this.#lane.within(`free memory of device ${this.device.uuid}`, freeing);
  }

  async #free(name: PageName): Promise<void> {
    const token = toToken(name);
    await this.#handles.free(token);
    this.#sizes.delete(token);
    this.#kept.delete(token);
    const unkept = this.#unkept.get(name.pool);
    unkept?.delete(name.page);
    if (unkept?.size === 0) this.#unkept.delete(name.pool);
    await this.letNodeGo();
  }

  /** Closes the descriptor of a page of which nothing is known. */
  close(fd: number): Promise<void> {
    return this.#lane.close(fd);
  }

  letNodeGo(): Promise<void> {
    return this.#node.letGo(() => this.#hasNoRegions() && this.isEmpty);
  }
}
