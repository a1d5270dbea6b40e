/** From a tensor reference to memory, without the server: a tensor of a region, or one in a slot of a ring. */

import { TensordError } from "./errors.ts";
import { Mismatch } from "./memory/attach.ts";
import { Attachment } from "./memory/attachment.ts";
import { type LockOptions, retryWithin } from "./memory/lock.ts";
import type { Access } from "./memory/pages.ts";
import { placeOf, shownReference, TensorReference } from "./regions/reference.ts";
import { OpenedTensor } from "./regions/tensor.ts";
import { tryOpenSlot } from "./rings/open-slot.ts";
import type { Session } from "./session/session.ts";

/** The tensor, or undefined while another process has its slot locked. */
type Attempt = () => OpenedTensor | undefined;

/**
 * Maps the pages of one tensor. Asks nobody; tells the session, if one is given. Undefined while its slot is locked.
 * @throws TensordError `stale-ref`, `region-sealed`, `validation-failed`
 */
export function tryOpen(reference: TensorReference, access: Access, session?: Session): OpenedTensor | undefined {
  checkReference(reference);
  const { byteOffset, byteSize, generation } = reference;
  const map = () => {
    const attachment = new Attachment(placeOf(reference), byteOffset, byteSize, access);
    session?.report(attachment);
    return attachment;
  };
  return orStale(() => {
    if (generation === 0) return new OpenedTensor(map(), { name: "", ...reference });
    return tryOpenSlot(reference, access, map);
  });
}

/** What an attempt opened. @throws TensordError `deadline-exceeded` if the slot is locked; what the attempt throws */
export function openNow(reference: TensorReference, attempt: Attempt): OpenedTensor {
  const tensor = attempt();
  if (tensor !== undefined) return tensor;
  const detail = `Cannot open ${shownReference(reference)}: another process has its slot locked`;
  throw new TensordError("deadline-exceeded", detail, { hint: "openWhenFree(reference, { timeoutMs }) waits for it" });
}

/** As `openNow`, and waits for the lock of a slot. */
export async function openWhenFree(attempt: Attempt, options: LockOptions): Promise<OpenedTensor> {
  return retryWithin(options, "open the tensor of a slot", attempt);
}

/** JavaScript lets anything come here, and only `parse` has looked at every field. */
export function checkReference(reference: TensorReference): void {
  if (reference instanceof TensorReference) return;
  throw new TensordError("validation-failed", "Cannot open a tensor: what was given is no TensorReference", {
    hint: "read it with TensorReference.parse",
  });
}

/** What `open` returns; a file that is not the one meant is `stale-ref`. */
export function orStale<Result>(open: () => Result): Result {
  try {
    return open();
  } catch (error) {
    throw error instanceof Mismatch ? toStale(error) : error;
  }
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
