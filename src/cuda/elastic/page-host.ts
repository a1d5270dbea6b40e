/** Where the memory of a device's pages is found. */

import { closeSync } from "node:fs";
import type { Storages } from "../../memory/storage/storages.ts";
import type { DevicePages } from "../device-pages.ts";
import { DeviceStorage } from "../device-storage.ts";

export class PageHost {
  readonly #storages: Storages;

  constructor(storages: Storages) {
    this.#storages = storages;
  }

  /** Of a device on which pages are made. @throws TensordError as `Storages.device`. */
  find(uuid: string): DevicePages {
    const storage = this.#storages.device(uuid);
    if (storage instanceof DeviceStorage) return storage.pages;
    throw new Error(`${uuid} is the device of another kind of storage`);
  }

  /** Of a device that may be withheld; undefined if this server has none of it. */
  findAny(uuid: string): DevicePages | undefined {
    return this.#all.find(({ device }) => device.uuid === uuid);
  }

  get #all(): readonly DevicePages[] {
    return [...this.#storages.all].flatMap((storage) => (storage instanceof DeviceStorage ? [storage.pages] : []));
  }

  /** Closes what may be the last descriptor of a page: not on this thread, where there is one for that. */
  async close(fd: number): Promise<void> {
    const [pages] = this.#all;
    if (pages === undefined) closeSync(fd);
    else await pages.close(fd);
  }

  /** Lets go of the nodes of devices of which nothing is left. */
  async letNodesGo(): Promise<void> {
    for (const pages of this.#all) await pages.letNodeGo();
  }
}
