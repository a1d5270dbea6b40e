/** Operations: begun in one turn, followed by whoever asks, ended by their work, by request, or with the server. */

import { TensordError } from "../error.ts";
import { limits } from "../limits.ts";
import { createToken, parseId } from "../naming.ts";
import type { Operation, OperationState } from "../state/operation.ts";
import type { Store } from "../state/store.ts";

export type OperationRequest = Pick<Operation, "kind" | "model" | "createdBy" | "requestKey" | "source" | "totalBytes">;

/** @returns the id of the region that it led to. */
export type Work = (onBytes: (byteSize: number) => void, signal: AbortSignal) => Promise<string>;

/**
 * Begins `work`, which goes on whatever becomes of the client.
 * @returns it, or the one that was begun under the same key by the same caller.
 * @throws TensordError `too-many-requests`, `shutting-down`.
 */
export function startOperation(store: Store, request: OperationRequest, work: Work): Operation {
  store.refuseIfStopping();
  const { requestKey, createdBy } = request;
  const same = (one: Operation) => one.requestKey === requestKey && one.createdBy === createdBy;
  const known = requestKey === null ? undefined : store.operations.after(0, store.now()).find(same);
  if (known !== undefined) return known;
  if (store.operations.running >= limits.operationsRunning) {
    throw new TensordError("too-many-requests", `Cannot begin: ${limits.operationsRunning} operations run already`, {
      hint: "Wait until one has ended, or cancel one.",
    });
  }
  const cancel = new AbortController();
  const { promise: ended, resolve } = Promise.withResolvers<void>();
  const operation: Operation = {
    ...request,
    key: store.operations.nextKey(),
    token: createToken(),
    doneBytes: 0,
    state: "running",
    result: null,
    failure: null,
    startedAt: store.now(),
    endedAt: null,
    cancel,
    ended,
  };
  store.operations.add(operation);
  store.operations.running += 1;
  void follow(store, operation, work).then(resolve);
  return operation;
}

async function follow(store: Store, operation: Operation, work: Work): Promise<void> {
  const signal = AbortSignal.any([operation.cancel.signal, store.stopping]);
  const onBytes = (byteSize: number) => {
    operation.doneBytes += byteSize;
  };
  let state: OperationState = "succeeded";
  try {
    operation.result = await work(onBytes, signal);
    operation.doneBytes = operation.totalBytes;
  } catch (error) {
    state = operation.cancel.signal.aborted && error === operation.cancel.signal.reason ? "cancelled" : "failed";
    operation.failure = error;
  }
  operation.state = state;
  operation.endedAt = store.now();
  store.operations.running -= 1;
}

/** Stops it; what has ended stays as it ended. Resolves when nothing of it goes on. */
export async function cancelOperation(operation: Operation): Promise<void> {
  operation.cancel.abort(
    new TensordError("cancelled", `Cannot finish op_${operation.token}: it was cancelled`, {
      hint: "Nothing of it is left; begin it again if it is needed.",
    }),
  );
  await operation.ended;
}

/** Waits for its end, but no longer than `waitMs`, and no longer than the client or the server is there. */
export async function waitForOperation(
  store: Store,
  operation: Operation,
  waitMs: number,
  signal: AbortSignal,
): Promise<void> {
  if (waitMs <= 0 || operation.endedAt !== null) return;
  const over = Promise.withResolvers<void>();
  const stop = AbortSignal.any([signal, store.stopping]);
  const end = () => over.resolve();
  const timer = setTimeout(end, waitMs);
  stop.addEventListener("abort", end);
  if (stop.aborted) end();
  try {
    await Promise.race([operation.ended, over.promise]);
  } finally {
    clearTimeout(timer);
    stop.removeEventListener("abort", end);
  }
}

/** The operation with this id, unless it never was, or ended too long ago. */
export function findOperation(store: Store, id: string): Operation | undefined {
  const token = parseId("op_", id);
  return token === undefined ? undefined : store.operations.find(token, store.now());
}

/** One page in the order of their start, after `cursor`. */
export function listOperations(
  store: Store,
  limit: number,
  cursor: number,
  sees: (operation: Operation) => boolean,
): { readonly items: readonly Operation[]; readonly nextCursor: string | null } {
  const seen = store.operations.after(cursor, store.now()).filter(sees);
  const items = seen.slice(0, limit);
  const last = items.at(-1);
  return { items, nextCursor: seen.length > limit && last !== undefined ? String(last.key) : null };
}
