/**
 * From a tensor reference to memory, without the server. A tensor of a ring is locked first, and opened only if the word of
 * its slot is the reference's generation (docs/protocol.md, "Ring").
 */

import { closeSync, readSync } from "node:fs";
import { TensordError } from "../errors.ts";
import { Mismatch, openChecked, type Place } from "../memory/attach.ts";
import { Attachment } from "../memory/attachment.ts";
import { type LockOptions, retryWithin, trySetLock } from "../memory/lock.ts";
import type { Access } from "../memory/mapping.ts";
import { slotOf, wordOffset } from "../rings/ring-layout.ts";
import { SlotTensor } from "../rings/slot-tensor.ts";
import type { Session } from "../session/session.ts";
import { TensorReference } from "./reference.ts";
import { OpenedTensor } from "./tensor.ts";
import { TensorLock } from "./tensor-lock.ts";

/**
 * Maps the pages of one tensor. Asks nobody; tells the session, if one is given.
 * @throws TensordError `stale-ref`, `region-sealed`, `validation-failed`; `deadline-exceeded` if its slot is locked
 */
export function openReference(reference: TensorReference, access: Access, session?: Session): OpenedTensor {
  const tensor = tryOpen(reference, access, session);
  if (tensor !== undefined) return tensor;
  throw new TensordError("deadline-exceeded", `Cannot open ${shown(reference)}: another process has its slot locked`, {
    hint: "client.openWhenFree(reference, { timeoutMs }) waits for it",
  });
}

/** As `openReference`, and waits for the lock of a slot. */
export function openWhenFree(
  reference: TensorReference,
  access: Access,
  options: LockOptions,
  session?: Session,
): Promise<OpenedTensor> {
  return retryWithin(options, "open the tensor of a slot", () => tryOpen(reference, access, session));
}

/** The tensor, or undefined while another process has its slot locked. */
function tryOpen(reference: TensorReference, access: Access, session: Session | undefined): OpenedTensor | undefined {
  // JavaScript lets anything come here, and only `parse` has looked at every field.
  if (!(reference instanceof TensorReference)) {
    throw new TensordError("validation-failed", "Cannot open a tensor: what was given is no TensorReference", {
      hint: "read it with TensorReference.parse",
    });
  }
  const { region, path, dev, ino, byteOffset, byteSize } = reference;
  const place = { region, path, dev, ino, byteSize: byteOffset + byteSize };
  let lock: TensorLock | undefined;
  try {
    if (reference.generation !== 0) {
      lock = lockSlot(reference, place, access);
      if (lock === undefined) return undefined;
    }
    const attachment = new Attachment(place, byteOffset, byteSize, access);
    session?.report(attachment);
    if (lock !== undefined) return new SlotTensor(attachment, reference, lock);
    return new OpenedTensor(attachment, { name: "", ...reference });
  } catch (error) {
    lock?.release();
    throw error instanceof Mismatch ? toStale(error) : error;
  }
}

/**
 * Locks the tensor of a slot, whose word must be the reference's generation. The lock excludes the owner's, so that the word
 * stays what it is from then on. @returns undefined if somebody else has it locked
 */
function lockSlot(reference: TensorReference, place: Place, access: Access): TensorLock | undefined {
  const { byteOffset, byteSize, generation } = reference;
  const wordAt = wordOffset(slotOf(generation));
  if (wordAt >= byteOffset) {
    throw new TensordError(
      "validation-failed",
      `Cannot open ${shown(reference)}: it begins at ${byteOffset}, want it behind the word of its slot at ${wordAt}`,
    );
  }
  const kind = access === "write" ? "write" : "read";
  const range = { start: BigInt(byteOffset), length: BigInt(Math.max(byteSize, 1)) };
  const fd = openChecked(place, kind === "write");
  try {
    const isLocked = trySetLock(fd, kind, range.start, range.length);
    const word = readWord(fd, wordAt);
    if (word !== BigInt(generation)) {
      throw new TensordError("stale-ref", `Cannot open ${shown(reference)}: its slot is at ${word} by now`, {
        hint: "its owner has filled the slot anew: ask for a new reference, or give the ring more slots",
      });
    }
    if (isLocked) return new TensorLock(kind, range, fd);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  closeSync(fd);
  return undefined;
}

function readWord(fd: number, at: number): bigint {
  const word = Buffer.alloc(8);
  // What a short read leaves is zeros, which are nobody's generation.
  readSync(fd, word, 0, word.byteLength, at);
  return word.readBigUInt64LE();
}

function toStale(mismatch: Mismatch): TensordError {
  const reason = mismatch.toError();
  if (reason.code === "region-sealed") return reason;
  return new TensordError("stale-ref", mismatch.message, {
    hint: "its region was deleted, or this process sees another file system than the sender; ask for a new one",
    fields: { cause: reason.code },
    cause: mismatch,
  });
}

function shown({ region, byteOffset, generation }: TensorReference): string {
  return `the tensor at ${byteOffset} of ${region}, generation ${generation}`;
}
