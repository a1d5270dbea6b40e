/** Bytes on a device do not pass through the server: it makes no context there, without which nobody reads or writes them. */

import { TensordError } from "../memory/error.ts";
import { toRegionId } from "../memory/naming.ts";
import type { Bytes } from "../memory/storage/storage.ts";

export class DeviceBytes implements Bytes {
  readonly #uuid: string;

  constructor(uuid: string) {
    this.#uuid = uuid;
  }

  open(token: string): never {
    throw this.#refusal("move the bytes", token);
  }

  readPrefix(token: string): never {
    throw this.#refusal("read the bytes", token);
  }

  async hash(token: string): Promise<never> {
    throw this.#refusal("take a checksum", token);
  }

  async fill(token: string): Promise<never> {
    throw this.#refusal("copy into the bytes", token);
  }

  #refusal(what: string, token: string): TensordError {
    const where = `they are in the memory of device ${this.#uuid}, which the server does not map`;
    return new TensordError("storage-unavailable", `Cannot ${what} of ${toRegionId(token)}: ${where}`, {
      hint: "Attach to the region in a process that uses the device, and copy them there.",
    });
  }
}
