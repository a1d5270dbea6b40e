/**
 * What is known of one device on which there are regions, or may be. Those of an earlier server are back before its driver has told anything, and
 * whatever it tells.
 */

import { TensordError } from "../memory/error.ts";
import { MiB } from "../memory/limits.ts";
import type { Withheld } from "../memory/storage/storage.ts";
import type { UsableDevice } from "./device-calls.ts";

/** What the driver of every card rounds up to that this was read of; it counts until that one's has told. */
const usualGranularity = 2 * MiB;

export class DeviceState {
  readonly uuid: string;
  #device: UsableDevice | undefined;
  #withheld: Withheld | null;

  /** @param known the device, or why nothing is made on it yet. */
  constructor(uuid: string, known: UsableDevice | Withheld) {
    this.uuid = uuid;
    this.#device = "uuid" in known ? known : undefined;
    this.#withheld = "uuid" in known ? null : known;
  }

  get withheld(): Withheld | null {
    return this.#withheld;
  }

  /** The driver has told of it: from here on regions are made there. */
  use(device: UsableDevice): void {
    this.#device = device;
    this.#withheld = null;
  }

  withhold(withheld: Withheld): void {
    this.#withheld = withheld;
  }

  get granularity(): number {
    return this.#device?.granularity ?? usualGranularity;
  }

  /** 0 as long as nobody knows. */
  get totalBytes(): number {
    return this.#device?.totalBytes ?? 0;
  }

  /** @throws TensordError `storage-unavailable` if nothing can be made there. */
  get usable(): UsableDevice {
    if (this.#device !== undefined && this.#withheld === null) return this.#device;
    throw new TensordError("storage-unavailable", `Cannot use device ${this.uuid}: ${this.#withheld?.reason}`, {
      hint: "See what `tensord doctor` says of it.",
    });
  }
}
