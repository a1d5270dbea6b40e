/** Lease files of pools: a memfd without a byte each, which the fd holder keeps, so that slots stay locked while no server runs. */

import { closeSync, fchmodSync } from "node:fs";
import { TensordError } from "../../memory/error.ts";
import { toOutOfDescriptors, withSpare } from "../../memory/os/descriptors.ts";
import { addSeals, createMemfd } from "../../memory/os/libc-memory.ts";
import { privateModes } from "../../memory/storage/access-modes.ts";
import type { Memfds } from "../../memory/storage/memfd/memfds.ts";

/** What the fd holder calls it. */
function toName(token: string): string {
  return `${token}.pool`;
}

/** The token of the pool that a name is of. */
export function parseLeaseName(name: string): string | undefined {
  return /^([a-z2-7]{26})\.pool$/.exec(name)?.[1];
}

export class LeaseFiles {
  readonly #instance: string;
  readonly #memfds: Memfds;

  constructor(instance: string, memfds: Memfds) {
    this.#instance = instance;
    this.#memfds = memfds;
  }

  /** Its descriptor, which stays open until it is removed. @throws TensordError `out-of-descriptors`, `io-error`. */
  async create(token: string): Promise<number> {
    const fd = this.#open(token);
    this.#memfds.addOther(toName(token), fd);
    try {
      await this.#memfds.holder?.keep(toName(token), fd);
    } catch (error) {
      this.#memfds.takeOther(toName(token));
      closeSync(fd);
      throw error;
    }
    return fd;
  }

  #open(token: string): number {
    try {
      const fd = withSpare(() => createMemfd(`tensord.${this.#instance}.${token}.pool`), "long");
      fchmodSync(fd, privateModes.open);
      addSeals(fd, "shrink", "grow");
      return fd;
    } catch (error) {
      if (error instanceof TensordError) throw error;
      const { message, code = "" } = error as NodeJS.ErrnoException;
      throw (
        toOutOfDescriptors(error) ??
        new TensordError(
          "io-error",
          `Cannot make an elastic pool's lease file: ${message}`,
          { errno: code, hint: "See the server's log." },
          { cause: error },
        )
      );
    }
  }

  /** That of an earlier server, if it was kept. */
  find(token: string): number | undefined {
    return this.#memfds.findOther(toName(token));
  }

  async remove(token: string): Promise<void> {
    const fd = this.#memfds.takeOther(toName(token));
    await this.#memfds.holder?.drop(toName(token));
    if (fd !== undefined) closeSync(fd);
  }
}
