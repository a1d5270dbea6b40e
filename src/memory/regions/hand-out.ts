/**
 * Handing out a region's open file, for a process that cannot reach its name: opened anew, leased, and only then looked at, so that
 * whoever frees it either sees the lease or is seen. How it travels is not known here.
 */

import { closeSync } from "node:fs";
import { TensordError } from "../error.ts";
import { describe, idOf } from "../journal/region-record.ts";
import { openFile } from "../os/files.ts";
import { type LeaseKind, tryLease } from "../os/kernel-lease.ts";
import { createSealedFile } from "../os/sealed-file.ts";
import { nextState } from "../state/lifecycle.ts";
import type { Region } from "../state/region.ts";
import type { Store } from "../state/store.ts";
import type { DataAccess } from "../storage/data-file.ts";
import type { DeviceAccess } from "../storage/storage.ts";
import { TensorFile } from "../storage/tensor-files.ts";

export interface HandOut extends Disposable {
  /** Each a description of its own, all of them leased. Closed at the end: who gets copies has them by then. */
  readonly descriptors: readonly number[];
  /** Whether they carry the lease; of a region that is barred they cannot. */
  readonly isLeased: boolean;
}

/**
 * @param count how many descriptions.
 * @throws TensordError `region-draining`, `region-sealed`, `region-busy`, `region-not-found`, `out-of-descriptors`, `io-error`.
 */
export function handOut(store: Store, region: Region, access: DataAccess, lease: LeaseKind, count: number): HandOut {
  checkStands(region, access);
  using opened = new DisposableStack();
  const { memory } = store.storages.of(region);
  const descriptors = Array.from({ length: count }, () =>
    opened.adopt(memory.openDescription(region.token, access), closeSync),
  );
  store.step("hand-out.opened");
  const isLeased = descriptors.map((fd) => tryLease(fd, lease, access === "write")).every(Boolean);
  store.step("hand-out.locked");
  checkStands(region, access);
  if (!isLeased && region.state !== "sealed") throw barred(region);
  const all = opened.move();
  return { descriptors, isLeased, [Symbol.dispose]: () => all.dispose() };
}

function checkStands(region: Region, access: DataAccess): void {
  nextState(region, access === "write" ? "write" : "attach");
}

function barred(region: Region): TensordError {
  return new TensordError(
    "region-busy",
    `Cannot attach to ${describe(region)}: it is open, and a process write-locks the byte at which it is leased`,
    { region: idOf(region), hint: "Wait until that process ends, or create another region." },
  );
}

/**
 * As `handOut`, of a region on a device: of its lease file, and last of all the driver's own handle, of which the driver makes a descriptor. The
 * lease holds the region meanwhile, and whether it stands is looked at once more.
 * @throws TensordError beside, as `DeviceAccess.exportHandle`.
 */
export async function handOutOnDevice(
  store: Store,
  region: Region,
  device: DeviceAccess,
  access: DataAccess,
  lease: LeaseKind,
  count: number,
): Promise<HandOut> {
  using opened = new DisposableStack();
  const { descriptors, isLeased } = opened.use(handOut(store, region, access, lease, count));
  const handle = opened.adopt(await device.exportHandle(region.token), closeSync);
  store.step("hand-out.exported");
  checkStands(region, access);
  const all = opened.move();
  return { descriptors: [...descriptors, handle], isLeased, [Symbol.dispose]: () => all.dispose() };
}

/** A file whose first `tensors.byteSize` bytes are the list of the region's tensors, which nobody changes; the caller's to close. */
export function openTensors({ tensors }: Region): number {
  // A long list lies in a file of the server's own already.
  if (tensors instanceof TensorFile) return openFile(tensors.path, "r");
  return createSealedFile("tensord-tensors", tensors.read(0, tensors.byteSize));
}
