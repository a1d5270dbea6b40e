/**
 * The device's node in /dev, kept open beside the memory of its regions: without persistence mode the driver tears a GPU down, with all that is on
 * it, once nobody has that open.
 */

import { closeSync, constants, existsSync } from "node:fs";
import { openFile } from "../memory/os/files.ts";
import type { Memfds } from "../memory/storage/memfd/memfds.ts";

export class DeviceNode {
  readonly #path: string | undefined;
  readonly #name: string;
  readonly #memfds: Memfds;
  /** One after the other: what is let go of and kept again must not be let go of after that. */
  #last: Promise<void> = Promise.resolve();

  /** @param path undefined: it has none, or nobody knows which. */
  constructor(uuid: string, path: string | undefined, memfds: Memfds) {
    this.#path = path;
    this.#name = `node.${uuid.toLowerCase()}`;
    this.#memfds = memfds;
  }

  /** Has the fd holder keep it, if there are both. @throws TensordError as `FdHolder.keep`. */
  keep(): Promise<void> {
    return this.#next(async () => {
      const { holder } = this.#memfds;
      // One that an earlier server opened is as good.
      if (holder === undefined || this.#path === undefined || this.#memfds.findOther(this.#name) !== undefined) return;
      if (!existsSync(this.#path)) return;
      const fd = openFile(this.#path, constants.O_RDWR, undefined, "long");
      try {
        await holder.keep(this.#name, fd);
      } catch (error) {
        closeSync(fd);
        throw error;
      }
      this.#memfds.addOther(this.#name, fd);
    });
  }

  /** @param isFree whether no region is left, asked when it is its turn. */
  letGo(isFree: () => boolean): Promise<void> {
    return this.#next(async () => {
      if (!isFree() || this.#memfds.findOther(this.#name) === undefined) return;
      await this.#memfds.holder?.drop(this.#name);
      const fd = this.#memfds.takeOther(this.#name);
      if (fd !== undefined) closeSync(fd);
    });
  }

  #next(step: () => Promise<void>): Promise<void> {
    const done = this.#last.then(step);
    this.#last = done.catch(() => {});
    return done;
  }
}
