/** From a tensor reference to memory, without the server: a tensor of a region, or one in a slot of a ring. */

import { TensordError } from "../errors.ts";
import { Mismatch, type Place } from "../memory/attach.ts";
import type { Attached } from "../memory/attached.ts";
import { retryWithin } from "../memory/lock.ts";
import type { Access } from "../memory/pages.ts";
import type { LockOptions } from "../options.ts";
import type { Asker } from "../regions/asker.ts";
import { copyHere, copyOf } from "../regions/heap.ts";
import { mapKeptSoon } from "../regions/keep.ts";
import { placeOf, shownReference, type TensorReference } from "../regions/reference.ts";
import { standingAt, whileStanding } from "../regions/standing.ts";
import { OpenedTensor } from "../regions/tensor.ts";
import { tryOpenSlot } from "./open-slot.ts";

/** Maps the bytes of a reference. @throws Mismatch, TensordError */
export type MapReference = (reference: TensorReference, access: Access) => Attached;

/** Maps the pages of each reference by themselves, and tells the session, if there is one. */
export function mapAlone(asker: Asker): MapReference {
  const { session } = asker;
  return (reference, access) => {
    const place = standingAt(asker, placeOf(reference));
    const { byteOffset, byteSize, generation } = reference;
    if (reference.storage === "heap") return mapCopy(place, reference, access);
    const attachment = mapKeptSoon(session, place, byteOffset, byteSize, access);
    // A ring is no hand-off: it is never sealed.
    session?.report(attachment, generation === 0 ? undefined : false);
    return attachment;
  };
}

/** Maps this thread's copy of a region that no process maps, which is here already. Nobody is told of it. */
function mapCopy(place: Place, reference: TensorReference, access: Access): Attached {
  const copy = copyHere(reference, access);
  try {
    const attachment = mapKeptSoon(undefined, { ...place, copy }, reference.byteOffset, reference.byteSize, access);
    attachment.whenOver(() => copy.letGo());
    return attachment;
  } catch (error) {
    copy.letGo();
    throw error;
  }
}

/**
 * Opens it without a wait. Asks nobody but the broker, where there is no name that it can be opened by.
 * @throws TensordError `stale-ref`, `region-sealed`, `validation-failed`; `deadline-exceeded` if its slot is locked
 */
export function openNow(asker: Asker, reference: TensorReference, access: Access, map: MapReference): OpenedTensor {
  const tensor = tryOpen(standingAt(asker, placeOf(reference)), reference, access, map);
  if (tensor !== undefined) return tensor;
  const detail = `Cannot open ${shownReference(reference)}: another process has its slot locked`;
  throw new TensordError("deadline-exceeded", detail, { hint: "openWhenFree(reference, { timeoutMs }) waits for it" });
}

/** As `openNow`, and waits for the lock of a slot. The server is asked before a region is said to be gone. */
export async function openWhenFree(
  asker: Asker,
  reference: TensorReference,
  access: Access,
  map: MapReference,
  options: LockOptions,
): Promise<OpenedTensor> {
  const place = standingAt(asker, placeOf(reference));
  const attempt = () => tryOpen(place, reference, access, map);
  const isCopied = reference.storage === "heap" && reference.generation === 0;
  const held = isCopied ? await copyOf(asker.api, reference, access, options.signal) : undefined;
  try {
    return await whileStanding(place, () => retryWithin(options, "open the tensor of a slot", attempt));
  } finally {
    held?.letGo();
  }
}

/** The tensor, or undefined while another process has its slot locked. */
function tryOpen(
  place: Place,
  reference: TensorReference,
  access: Access,
  map: MapReference,
): OpenedTensor | undefined {
  try {
    if (reference.generation !== 0) return tryOpenSlot(reference, place, access, () => map(reference, access));
    return new OpenedTensor(map(reference, access), { name: "", aliasOf: null, logical: null, ...reference });
  } catch (error) {
    throw error instanceof Mismatch ? toStale(error) : error;
  }
}

function toStale(mismatch: Mismatch): TensordError {
  const reason = mismatch.toError();
  if (reason.code === "region-sealed") return reason;
  const hint =
    "its region was deleted, or this process sees another file system than the sender: ask for a new one; " +
    "openWhenFree asks the server first, which brings back a file that a stock reader has unlinked";
  const broker = mismatch.noBroker;
  // It will be back, and the region with it.
  if (broker?.code === "server-unavailable")
    return new TensordError(broker.code, reason.detail, { ...broker, cause: mismatch });
  return new TensordError("stale-ref", broker === undefined ? mismatch.message : reason.detail, {
    hint: broker?.hint === undefined ? hint : `${hint}; or, for the broker: ${broker.hint}`,
    fields: { cause: reason.code },
    cause: mismatch,
  });
}
