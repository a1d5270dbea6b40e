/**
 * The readers' side of a ring (docs/protocol.md, "Ring"): a slot is locked first, and its tensor opened only if the slot's
 * word is the reference's generation. The owner's side is `ring.ts`.
 */

import { readSync } from "node:fs";
import { TensordError } from "../errors.ts";
import type { Place } from "../memory/attach.ts";
import type { Attached } from "../memory/attached.ts";
import { trySetLock } from "../memory/lock.ts";
import { openFileNow } from "../memory/open.ts";
import type { Access } from "../memory/pages.ts";
import { shownReference, type TensorReference } from "../regions/reference.ts";
import { TensorLock } from "../regions/tensor-lock.ts";
import { slotOf, wordOffset } from "./ring-layout.ts";
import { SlotTensor } from "./slot-tensor.ts";

/**
 * The tensor that a reference with a generation means, mapped by `map`, or undefined while another process has its slot
 * locked. @throws Mismatch; TensordError `stale-ref` if the slot holds something else by now, `validation-failed`
 */
export function tryOpenSlot(
  reference: TensorReference,
  place: Place,
  access: Access,
  map: () => Attached,
): SlotTensor | undefined {
  const lock = lockSlot(reference, place, access);
  if (lock === undefined) return undefined;
  try {
    return new SlotTensor(map(), reference, lock);
  } catch (error) {
    lock.release();
    throw error;
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
      `Cannot open ${shownReference(reference)}: it begins at ${byteOffset}, want it behind the word of its slot at ${wordAt}`,
    );
  }
  const kind = access === "write" ? "write" : "read";
  const range = { start: BigInt(byteOffset), length: BigInt(Math.max(byteSize, 1)) };
  const { file } = openFileNow(place, { isWriter: kind === "write", isLeased: false });
  try {
    const isLocked = trySetLock(file.fd, kind, range.start, range.length);
    const word = readWord(file.fd, wordAt);
    if (word !== BigInt(generation)) {
      throw new TensordError("stale-ref", `Cannot open ${shownReference(reference)}: its slot is at ${word} by now`, {
        hint: "its owner has filled the slot anew: ask for a new reference, or give the ring more slots",
      });
    }
    if (isLocked) return new TensorLock(kind, range, file);
  } catch (error) {
    file.close();
    throw error;
  }
  file.close();
  return undefined;
}

function readWord(fd: number, at: number): bigint {
  const word = Buffer.alloc(8);
  // What a short read leaves is zeros, which are nobody's generation.
  readSync(fd, word, 0, word.byteLength, at);
  return word.readBigUInt64LE();
}
