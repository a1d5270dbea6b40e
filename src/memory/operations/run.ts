/**
 * Operations: begun in one turn, followed by whoever asks, ended by their work, by request, or with the server. What they do is told
 * of from their first turn to their last.
 */

import { TensordError } from "../error.ts";
import { limits } from "../limits.ts";
import { createToken, parseId, quote } from "../naming.ts";
import { toOutOfDescriptors } from "../os/descriptors.ts";
import { idOfOperation, type Operation, type OperationState } from "../state/operation.ts";
import type { Store } from "../state/store.ts";

export type OperationRequest = Pick<Operation, "kind" | "model" | "createdBy" | "requestKey" | "source" | "totalBytes">;

/** What is found out once it has begun. */
export interface Told {
  /** How many bytes there are to do. */
  setTotal(byteSize: number): void;
  /** Which of several ways it takes, and why. */
  setChoice(choice: NonNullable<Operation["choice"]>): void;
}

/**
 * @returns the id of the region that it led to, or null.
 */
export type Work = (onBytes: (byteSize: number) => void, signal: AbortSignal, told: Told) => Promise<string | null>;

/**
 * Begins `work`, which goes on whatever becomes of the client.
 * @returns it, or the one that was begun under the same key by the same caller.
 * @throws TensordError `too-many-requests`, `shutting-down`.
 */
export function startOperation(store: Store, request: OperationRequest, work: Work): Operation {
  store.refuseIfStopping();
  const known = findRequested(store, request);
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
    choice: null,
    startedAt: store.now(),
    endedAt: null,
    cancel,
    ended,
  };
  store.operations.add(operation);
  store.operations.running += 1;
  store.emit({ type: "tensord.operation.progress", operation });
  void follow(store, operation, work).then(resolve);
  return operation;
}

async function follow(store: Store, operation: Operation, work: Work): Promise<void> {
  const signal = AbortSignal.any([operation.cancel.signal, store.stopping]);
  let toldAt = performance.now();
  const onBytes = (byteSize: number) => {
    operation.doneBytes += byteSize;
    if (performance.now() - toldAt < limits.operationProgressMs) return;
    toldAt = performance.now();
    store.emit({ type: "tensord.operation.progress", operation });
  };
  const told: Told = {
    setTotal(byteSize) {
      operation.totalBytes = byteSize;
    },
    setChoice(choice) {
      operation.choice = choice;
    },
  };
  let state: OperationState = "succeeded";
  try {
    operation.result = await work(onBytes, signal, told);
    operation.doneBytes = operation.totalBytes;
  } catch (error) {
    state = operation.cancel.signal.aborted && error === operation.cancel.signal.reason ? "cancelled" : "failed";
    operation.failure = toFailure(store, operation, error);
  }
  operation.state = state;
  operation.endedAt = store.now();
  store.operations.running -= 1;
  store.operations.count(state);
  store.emit({ type: "tensord.operation.finished", operation });
}

/** What no table has is a mistake of ours: it is told to whoever runs the server, and nobody else. */
function toFailure(store: Store, operation: Operation, error: unknown): TensordError {
  if (error instanceof TensordError) return error;
  const outOfDescriptors = toOutOfDescriptors(error);
  if (outOfDescriptors !== undefined) return outOfDescriptors;
  const id = idOfOperation(operation);
  store.warn(`Cannot finish ${id}: the server made a mistake`, error);
  return new TensordError("internal", `Cannot finish ${id}: the server made a mistake`, {
    hint: `The server's log has the cause under ${id}. Please report it.`,
  });
}

/** The one that the same caller began under the same key, if it is told of still. */
export function findRequested(
  store: Store,
  { requestKey, createdBy }: Pick<OperationRequest, "requestKey" | "createdBy">,
): Operation | undefined {
  if (requestKey === null) return undefined;
  const same = (one: Operation) => one.requestKey === requestKey && one.createdBy === createdBy;
  return store.operations.after(0, store.now()).find(same);
}

/** Stops it; what has ended stays as it ended. Resolves when nothing of it goes on. */
export async function cancelOperation(operation: Operation): Promise<void> {
  operation.cancel.abort(
    new TensordError("cancelled", `Cannot finish ${idOfOperation(operation)}: it was cancelled`, {
      hint: "Nothing of it is left; begin it again if it is needed.",
    }),
  );
  await operation.ended;
}

/** Ends all that runs: each undoes itself, which is waited for. */
export async function stopOperations(store: Store): Promise<void> {
  if (store.operations.running === 0) return;
  store.stop();
  await Promise.all(store.operations.after(0, store.now()).map(({ ended }) => ended));
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

/** The operation with this id. @throws TensordError `operation-not-found` if it never was, or ended too long ago. */
export function findOperation(store: Store, id: string): Operation {
  const token = parseId("op_", id);
  const operation = token === undefined ? undefined : store.operations.find(token, store.now());
  if (operation !== undefined) return operation;
  throw operationNotFound(id);
}

export function operationNotFound(id: string): TensordError {
  return new TensordError("operation-not-found", `Cannot find operation ${quote(id)}: there is none`, {
    hint: "It ended a while ago, or with a server that was there before. Look whether its region is there, and begin it again if not.",
  });
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
