/** Waiting that its caller may end: each wait of this package takes an `AbortSignal`, and throws the signal's reason. */

import { setTimeout as sleep } from "node:timers/promises";
import { TensordError } from "./errors.ts";

export interface WaitOptions {
  /**
   * Ends the wait, with the signal's reason. A request that is under way is cut off: whether it had its effect is not
   * known then.
   */
  readonly signal?: AbortSignal | undefined;
}

/** Waits so long. With `ref: false` nobody waits for it, and the process may end meanwhile. @throws the signal's reason */
export async function pause(ms: number, { signal, ref }: WaitOptions & { readonly ref?: boolean } = {}): Promise<void> {
  try {
    await sleep(ms, undefined, { signal, ref });
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  }
}

/** What `promise` brings, or the signal's reason if that comes first. What the promise stands for goes on. */
export function orAborted<Result>(promise: Promise<Result>, signal: AbortSignal | undefined): Promise<Result> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
    if (signal.aborted) abort();
    else signal.addEventListener("abort", abort, { once: true });
  });
}

/** When a wait is over that begins now, as `performance.now()` counts. @throws TensordError `validation-failed` */
export function deadlineAfter(timeoutMs: number): number {
  if (timeoutMs >= 0) return performance.now() + timeoutMs;
  throw new TensordError("validation-failed", `Cannot wait ${timeoutMs} ms: want 0 or more`);
}
