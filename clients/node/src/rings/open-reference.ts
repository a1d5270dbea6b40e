/** From a tensor reference to memory, without the server: a tensor of a region, or one in a slot of a ring. */

import { isTensordError, TensordError } from "../errors.ts";
import type { RegionDescriptor } from "../http/wire.ts";
import { Mismatch, type Place } from "../memory/attach.ts";
import type { Attached } from "../memory/attached.ts";
import { retryWithin } from "../memory/lock.ts";
import { isOrigin } from "../memory/origin-file.ts";
import type { Access } from "../memory/pages.ts";
import type { LockOptions } from "../options.ts";
import type { Asker } from "../regions/asker.ts";
import { copyHere, copyOf } from "../regions/heap.ts";
import { mapKeptSoon } from "../regions/keep.ts";
import { checkStanding } from "../regions/mapper.ts";
import { placeOf, shownReference, type TensorReference } from "../regions/reference.ts";
import { standingAt, whileStanding } from "../regions/standing.ts";
import { OpenedTensor } from "../regions/tensor.ts";
import { tryOpenSlot } from "./open-slot.ts";

/** Maps the bytes of a reference. @throws Mismatch, TensordError */
export type MapReference = (reference: TensorReference, access: Access) => Attached;

/** Maps the pages of references into a file that is there. */
function mapAt({ session }: Asker, place: Place): MapReference {
  return ({ byteOffset, byteSize }, access) => {
    const attachment = mapKeptSoon(session, place, byteOffset, byteSize, access);
    session?.report(attachment, undefined);
    return attachment;
  };
}

/** Maps the pages of each reference by themselves, and tells the session, if there is one. */
export function mapAlone(asker: Asker): MapReference {
  const { session } = asker;
  return (reference, access) => {
    const place = standingAt(asker, toPlace(reference));
    const { byteOffset, byteSize, generation } = reference;
    if (reference.storage === "heap") return mapCopy(place, reference, access);
    const attachment = mapKeptSoon(session, place, byteOffset, byteSize, access);
    // A ring is no hand-off: it is never sealed.
    session?.report(attachment, generation === 0 ? undefined : false);
    return attachment;
  };
}

/** At once there is nobody to ask where a file of somebody else's is. */
function toPlace(reference: TensorReference): Place {
  const place = placeOf(reference);
  if (!isOrigin(place)) return place;
  throw new TensordError(
    "storage-unavailable",
    `Cannot open ${shownReference(reference)} at once: its region is a file`,
    {
      hint: "openWhenFree(reference) asks the server where it is",
    },
  );
}

/** Where the file is, by the server's word alone: a sender's could have this process open any. */
async function findFile({ api }: Asker, reference: TensorReference, signal?: AbortSignal): Promise<Place> {
  const refuse = (state: string) =>
    new TensordError("stale-ref", `Cannot open ${shownReference(reference)}: ${state}`, {
      hint: "its region was deleted, or its file replaced: ask for a new one",
    });
  let region: RegionDescriptor;
  try {
    region = await api.region(reference.region, signal);
  } catch (error) {
    if (isTensordError(error) && error.code === "region-not-found") throw refuse(error.detail);
    throw error;
  }
  checkStanding(region, "private");
  const { kind: storage, path, dev, ino, byteSize, mtimeNs } = region.storage;
  const end = reference.byteOffset + reference.byteSize;
  if (!isOrigin({ storage }) || dev !== reference.dev || ino !== reference.ino || end > byteSize) {
    throw refuse("its region is another file");
  }
  return { region: region.id, storage, instance: reference.instance, path, dev, ino, byteSize, mtimeNs };
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
  const isFile = isOrigin(reference);
  const place = standingAt(asker, isFile ? await findFile(asker, reference, options.signal) : placeOf(reference));
  const attempt = () => tryOpen(place, reference, access, isFile ? mapAt(asker, place) : map);
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

export function toStale(mismatch: Mismatch): TensordError {
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
