/** A copy as an operation: its source is leased in the turn that begins it, whatever becomes of it meanwhile. */

import { TensordError } from "../error.ts";
import { describe, idOf } from "../journal/region-record.ts";
import { type CopyTarget, copyRegion, copyWork } from "../regions/copy.ts";
import { nextState } from "../state/lifecycle.ts";
import type { Operation } from "../state/operation.ts";
import type { Region } from "../state/region.ts";
import type { Store } from "../state/store.ts";
import { findRequested, startOperation } from "./run.ts";

/**
 * Begins a copy of `source`. How it goes wrong later, the operation says.
 * @returns it, or the one that was begun under the same key by the same caller.
 * @throws TensordError `region-not-sealed` and its like, `model-not-found`, `storage-unavailable` of a source on a device, `too-many-requests`, `shutting-down`.
 */
export function startCopy(store: Store, source: Region, target: CopyTarget, requestKey: string | null): Operation {
  const { model, createdBy } = target;
  const known = findRequested(store, { requestKey, createdBy });
  if (known !== undefined) return known;
  nextState(source, "copy");
  refuseDevice(store, source);
  store.books.model(model);
  const request = {
    kind: "copy",
    model,
    createdBy,
    requestKey,
    source: idOf(source),
    totalBytes: copyWork(source),
  } as const;
  return startOperation(store, request, async (onBytes, signal) => {
    const { region } = await copyRegion(store, source, target, onBytes, signal);
    return idOf(region);
  });
}

/** Said at once: every copy from there would fail. */
function refuseDevice(store: Store, source: Region): void {
  const { device } = store.storages.of(source);
  if (device === null) return;
  throw new TensordError(
    "storage-unavailable",
    `Cannot copy ${describe(source)}: it is on device ${device.uuid}, want a source in host memory`,
    {
      region: idOf(source),
      hint: "Attach to it in a process that uses the device, and create a region of what is copied there.",
    },
  );
}
