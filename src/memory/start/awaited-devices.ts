/**
 * Devices that are found after the start: what the store does once their driver has answered. Regions that an earlier server left there are back
 * before that, and need it for nothing.
 */

import { toCharges } from "../regions/create.ts";
import type { DevicePool } from "../state/pool.ts";
import type { Store } from "../state/store.ts";
import type { Storage } from "../storage/storage.ts";
import type { FoundDevices } from "../storage/storages.ts";

export interface AwaitedDevices {
  /** Why they are not known yet, in words that end a sentence. */
  readonly reason: string;
  /** Never rejects. What it finds the caller disposes of. */
  readonly found: Promise<FoundDevices>;
}

/** A device's memory is a pool, of which all models together get what there is. */
export function toDevicePool({ device, memory }: Storage): DevicePool[] {
  if (device === null) return [];
  const { totalBytes } = memory.space();
  return [{ name: memory.pool, limitBytes: totalBytes === 0 ? null : totalBytes }];
}

/** Waits for the devices, however long that takes, and has regions made on them from then on. */
export async function settleDevices(store: Store, { found }: AwaitedDevices): Promise<void> {
  const devices = await found;
  // What is found while the store closes, its next start finds again.
  if (store.isClosing) return;
  for (const storage of devices.storages) await discardOld(store, storage);
  if (store.isClosing) return;
  store.storages.settleDevices(devices);
  for (const storage of store.storages.all) settlePool(store, storage);
  store.room.pump(store.books);
}

/** Before anything can be made there: halves of regions that an earlier server left. */
async function discardOld(store: Store, { memory }: Storage): Promise<void> {
  try {
    await memory.discardAll();
  } catch (error) {
    store.warn(`Cannot remove what was left of device ${memory.pool}; the next start tries again`, error);
  }
}

function settlePool(store: Store, storage: Storage): void {
  for (const { name, limitBytes } of toDevicePool(storage)) {
    const pool = store.books.pools.get(name);
    pool.limitBytes = limitBytes;
    for (const region of store.books.regions.after(0)) {
      if (region.poolName !== name) continue;
      const { chargedBytes } = toCharges(storage.memory, region.byteSize, 0);
      if (chargedBytes !== region.chargedBytes) store.books.recharge(region, chargedBytes);
    }
  }
}
