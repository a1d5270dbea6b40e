/** A device that is found while the store is open, when a test says so. */

import type { StorageParts } from "../../../src/memory/start/open-store.ts";
import type { FoundDevices } from "../../../src/memory/storage/storages.ts";
import { createDeviceStorage, fakeDevice } from "../../conformance/support/fake-device.ts";
import type { AppOptions, TestApp } from "../../harness/app.ts";

export class FoundLater {
  readonly reason = "the driver has not answered";
  readonly #found = Promise.withResolvers<FoundDevices>();
  #parts: StorageParts | undefined;

  get options(): AppOptions {
    return {
      storages: (parts) => {
        this.#parts = parts;
        return { storages: [], awaited: { reason: this.reason, found: this.#found.promise } };
      },
    };
  }

  /** From here on there is `fakeDevice`. */
  find(app: TestApp, more: Partial<FoundDevices> = {}): void {
    if (this.#parts === undefined) throw new Error(`no store is open for ${app.instance}`);
    const storages = [createDeviceStorage(this.#parts.memfds, fakeDevice)];
    this.#found.resolve({ storages, absence: undefined, refusals: new Map(), ...more });
  }

  findNone(absence: string): void {
    this.#found.resolve({ storages: [], absence, refusals: new Map() });
  }
}
