/**
 * Reads what the sender of a refused request still brings. Whoever sends all of it before it listens would find the
 * connection closed otherwise, and hear of a broken pipe and not of the refusal. Bounded in bytes and in time.
 */

import { limits } from "../memory/limits.ts";

/** @param stopping ends it. Resolves in any case: a sender that is gone needs no answer. */
export async function drain(body: ReadableStream<Uint8Array> | null, stopping: AbortSignal): Promise<void> {
  // What is locked has a reader, or had one that read it to its end.
  if (body === null || body.locked) return;
  const reader = body.getReader();
  // A read that waits ends by this, as if the body had.
  const end = () => void reader.cancel().catch(() => {});
  if (stopping.aborted) return end();
  stopping.addEventListener("abort", end);
  const deadline = setTimeout(end, limits.drainMs);
  const stalled = setTimeout(end, limits.drainStallMs);
  try {
    for (let left: number = limits.drainBytes; left > 0; stalled.refresh()) {
      const { value } = await reader.read();
      if (value === undefined) return;
      left -= value.length;
    }
  } catch {
    return;
  } finally {
    clearTimeout(deadline);
    clearTimeout(stalled);
    stopping.removeEventListener("abort", end);
    end();
  }
}
