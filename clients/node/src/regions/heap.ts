/**
 * Regions that no process maps (`heap`): their maker fills memory of this process, which the seal uploads; a reader downloads one
 * copy, which all that attach the region in this thread share (docs/protocol.md, "Attach").
 */

import { createReadStream } from "node:fs";
import { isTensordError, TensordError } from "../errors.ts";
import type { Api } from "../http/api.ts";
import { type RegionDescriptor, shown } from "../http/wire.ts";
import type { Attachment } from "../memory/attachment.ts";
import { LocalMemory } from "../memory/local-memory.ts";
import type { Access } from "../memory/pages.ts";
import { orAborted } from "../waiting.ts";
import { shownReference, type TensorReference } from "./reference.ts";

/** A region as this process maps it, of which it may have a copy. */
interface MappedCopy {
  readonly api: Api;
  readonly attachment: Pick<Attachment, "place">;
  descriptor: RegionDescriptor;
}

/** How much of an upload is on its way at a time. */
const pieceBytes = 1024 * 1024;

/** By region: what is here, or on its way. */
const copies = new Map<string, Promise<LocalMemory>>();
/** Of them, what is here. */
const present = new Map<string, LocalMemory>();

/** Whether no process maps it. */
export function isHeap({ storage }: Pick<RegionDescriptor, "storage">): boolean {
  // A server from before there was such storage says nothing of it.
  return (storage.href ?? null) !== null;
}

/** Memory for a region that this process has just made, held by the caller. */
export function makeLocal({ id, storage }: RegionDescriptor): LocalMemory {
  const memory: LocalMemory = new LocalMemory(id, storage.byteSize, () => forget(id, memory));
  return memory;
}

/**
 * This thread's copy of a sealed region, downloaded if it has none; held by the caller.
 * @throws TensordError `storage-unavailable` of one that is open; what a request throws
 */
export async function getCopy(
  api: Api,
  region: RegionDescriptor,
  access: Access,
  signal?: AbortSignal | undefined,
): Promise<LocalMemory> {
  const { id, state } = region;
  if (state === "open" || access === "write") {
    throw new TensordError(
      "storage-unavailable",
      `Cannot share ${shown(region)} while it is open: in heap storage its bytes are its maker's alone until the seal`,
      {
        hint:
          "attach it with timeoutMs, which waits until it is sealed; or create it in shm or memfd storage, where the server's " +
          "host has them",
        fields: { region: id, state },
      },
    );
  }
  for (;;) {
    let coming = copies.get(id);
    if (coming === undefined) {
      coming = download(api, region);
      copies.set(id, coming);
    }
    // The download is for all who wait: the signal of one of them ends that one's wait.
    const copy = await orAborted(coming, signal);
    // Who waited longer than others used it finds it gone.
    if (!copy.isEnded) return copy.hold();
  }
}

/** The copy that a reference means, if it is here; held by the caller. @throws TensordError `storage-unavailable` if not */
export function copyHere(reference: TensorReference, access: Access): LocalMemory {
  const copy = present.get(reference.region);
  if (copy !== undefined) {
    if (access === "write") throw sealed(reference);
    if (reference.byteOffset + reference.byteSize <= copy.byteSize) return copy.hold();
    const detail = `Cannot open ${shownReference(reference)}: its region has ${copy.byteSize} bytes`;
    throw new TensordError("stale-ref", detail, { hint: "ask for a new reference" });
  }
  throw new TensordError(
    "storage-unavailable",
    `Cannot open ${shownReference(reference)} at once: no process maps its region, and this one has not downloaded it`,
    { hint: "openWhenFree(reference) downloads it" },
  );
}

/** The copy that a reference means, downloaded if need be; held by the caller. @throws TensordError `stale-ref`, … */
export async function copyOf(
  api: Api,
  reference: TensorReference,
  access: Access,
  signal?: AbortSignal | undefined,
): Promise<LocalMemory> {
  try {
    const region = await api.region(reference.region, signal);
    if (access === "write" && region.state === "sealed") throw sealed(reference);
    return await getCopy(api, region, access, signal);
  } catch (error) {
    const isGone = isTensordError(error) && ["region-not-found", "region-draining"].includes(error.code);
    if (!isGone) throw error;
    throw new TensordError("stale-ref", `Cannot open ${shownReference(reference)}: ${error.detail}`, {
      hint: "its region was deleted: ask for a new one",
      cause: error,
    });
  }
}

/** What to say to who wants to write to what is final. */
function sealed(reference: TensorReference): TensordError {
  const detail = `Cannot write to ${shownReference(reference)}: its region is sealed`;
  return new TensordError("region-sealed", detail, { hint: "open it without writable" });
}

async function download(api: Api, { id, storage }: RegionDescriptor): Promise<LocalMemory> {
  const memory: LocalMemory = new LocalMemory(id, storage.byteSize, () => forget(id, memory));
  try {
    await api.download(id, storage.byteSize, (byteOffset, bytes) => memory.write(byteOffset, bytes));
  } catch (error) {
    copies.delete(id);
    memory.letGo();
    throw error;
  }
  memory.seal();
  present.set(id, memory);
  // Those who wait for it hold it before this turn is over; if all have gone away meanwhile, nobody does.
  setImmediate(() => memory.letGo());
  return memory;
}

function forget(region: string, memory: LocalMemory): void {
  if (present.get(region) !== memory) return;
  present.delete(region);
  copies.delete(region);
}

/** Sends what this process has written to a region that no process maps, and writes no more. */
export async function upload(
  { api, attachment, descriptor }: MappedCopy,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { copy } = attachment.place;
  if (copy === undefined) return;
  const start = descriptor.tensors.reduce((least, { byteOffset }) => Math.min(least, byteOffset), copy.byteSize);
  const byteSize = copy.byteSize - start;
  if (byteSize === 0) return;
  copy.hold();
  try {
    const open = () => createReadStream(copy.path, { start, highWaterMark: pieceBytes });
    await api.upload(descriptor.id, { byteSize, open }, signal);
  } finally {
    copy.letGo();
  }
}

/** The region was sealed: what is here is final, and good for all who attach it in this thread. */
export function finish({ attachment, descriptor }: MappedCopy): void {
  const { copy } = attachment.place;
  if (copy === undefined) return;
  copy.seal();
  if (copies.has(descriptor.id)) return;
  copies.set(descriptor.id, Promise.resolve(copy));
  present.set(descriptor.id, copy);
}

/** Whether a seal that failed here has sealed such a region: its answer was lost. */
export async function wasSealed(view: MappedCopy): Promise<boolean> {
  if (view.attachment.place.copy === undefined) return false;
  try {
    view.descriptor = await view.api.region(view.descriptor.id);
  } catch {
    return false;
  }
  if (view.descriptor.state !== "sealed") return false;
  finish(view);
  return true;
}

/** What to say to who wants a ring of such memory. */
export function noRing(): TensordError {
  return new TensordError(
    "storage-unavailable",
    "Cannot make a ring in heap storage: a ring is shared while it is open, and nobody shares this memory then",
    {
      hint: "send whole regions instead, each sealed; or make the ring in shm or memfd storage, where the server's host has them",
    },
  );
}
