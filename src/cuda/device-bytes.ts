/**
 * Bytes on a device do not pass through the server, which makes no context there: copiers fill them from a file, and take their checksum. Who
 * wants to read or write them by himself attaches to the region.
 */

import { TensordError } from "../memory/error.ts";
import { toRegionId } from "../memory/naming.ts";
import type { Bytes, FillSource } from "../memory/storage/storage.ts";
import type { CopierWork, DeviceCopier } from "./copiers.ts";
import type { DeviceHandles } from "./device-handles.ts";
import type { DeviceDriver } from "./device-lane.ts";

export class DeviceBytes implements Bytes {
  readonly #uuid: string;
  readonly #handles: DeviceHandles;
  readonly #lane: DeviceDriver;
  readonly #copier: DeviceCopier;
  /** How much the driver has allocated for a region of so many bytes. */
  readonly #toAllocation: (byteSize: number) => number;

  constructor(
    uuid: string,
    handles: DeviceHandles,
    lane: DeviceDriver,
    copier: DeviceCopier,
    toAllocation: (byteSize: number) => number,
  ) {
    this.#uuid = uuid;
    this.#handles = handles;
    this.#lane = lane;
    this.#copier = copier;
    this.#toAllocation = toAllocation;
  }

  open(token: string): never {
    throw this.#refusal("move the bytes", token);
  }

  readPrefix(token: string): never {
    throw this.#refusal("read the bytes", token);
  }

  hash(
    token: string,
    _dataOffset: number,
    byteSize: number,
    onChunk: (byteSize: number) => void,
  ): Promise<readonly bigint[]> {
    return this.#run(token, byteSize, undefined, onChunk);
  }

  fill(
    token: string,
    _dataOffset: number,
    byteSize: number,
    source: FillSource,
    onChunk: (byteSize: number) => void,
  ): Promise<readonly bigint[]> {
    return this.#run(token, byteSize, source, onChunk);
  }

  async resident(token: string): Promise<never> {
    throw this.#refusal("count the resident bytes", token);
  }

  async advise(token: string): Promise<never> {
    throw this.#refusal("advise the kernel on the bytes", token);
  }

  async flush(token: string): Promise<never> {
    throw this.#refusal("flush the bytes", token);
  }

  /** Data begins at the first byte. */
  async #run(
    token: string,
    byteSize: number,
    source: FillSource | undefined,
    onChunk: (byteSize: number) => void,
  ): Promise<readonly bigint[]> {
    if (byteSize === 0) return [];
    const what = source === undefined ? "take the checksum of" : "copy into";
    const handle = await this.#handles.export(token);
    try {
      const work: CopierWork = {
        deed: source === undefined ? "hash" : "fill",
        what: `${what} ${toRegionId(token)} on device ${this.#uuid}`,
        uuid: this.#uuid,
        allocationBytes: this.#toAllocation(byteSize),
        byteSize,
        sourceOffset: source?.byteOffset ?? 0,
        handle,
        source: source?.fd,
      };
      return await this.#copier.run(work, onChunk);
    } finally {
      // The region may have gone meanwhile: then this frees its memory.
      await this.#lane.close(handle);
    }
  }

  #refusal(what: string, token: string): TensordError {
    const where = `they are in the memory of device ${this.#uuid}, which the server does not map`;
    return new TensordError("storage-unavailable", `Cannot ${what} of ${toRegionId(token)}: ${where}`, {
      hint: "Attach to the region in a process that uses the device, and copy them there.",
    });
  }
}
