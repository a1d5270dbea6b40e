/** Operations in the books: long work that is under way, or ended a while ago. Nothing of it outlives the server. */

import type { TensordError } from "../error.ts";
import { limits } from "../limits.ts";

/** Open: a later server may have others. */
export const operationKinds = ["copy", "load", "unmap"] as const;
export const endStates = ["succeeded", "failed", "cancelled"] as const;
export const operationStates = ["running", ...endStates] as const;
export type OperationState = (typeof operationStates)[number];

export interface Operation {
  /** Ascends: the order of lists. */
  readonly key: number;
  readonly token: string;
  readonly kind: (typeof operationKinds)[number];
  /** The model that its result is in. */
  readonly model: string;
  /** Whose it is: the name of a token, or null. */
  readonly createdBy: string | null;
  /** What its client calls it, so that a repeated request gets the same one. */
  readonly requestKey: string | null;
  /** The id of the region that it reads, or of the elastic pool that it changes, or where a model file is. */
  readonly source: string;
  /** 0 while that is not known. */
  totalBytes: number;
  doneBytes: number;
  state: OperationState;
  /** The id of the region that it led to; null also of what leads to none. */
  result: string | null;
  /** What it failed with. */
  failure: TensordError | null;
  /** Of a load, how its file became a region, and why so; null until that is known. */
  choice: { readonly mode: string; readonly reason: string } | null;
  readonly startedAt: number;
  endedAt: number | null;
  readonly cancel: AbortController;
  /** Settles when it has ended, however. */
  readonly ended: Promise<void>;
}

export function idOfOperation({ token }: Pick<Operation, "token">): string {
  return `op_${token}`;
}

export class Operations {
  readonly #byToken = new Map<string, Operation>();
  readonly #ended = new Map<OperationState, number>();
  #lastKey = 0;
  running = 0;

  nextKey(): number {
    this.#lastKey += 1;
    return this.#lastKey;
  }

  count(state: OperationState): void {
    this.#ended.set(state, this.endedAs(state) + 1);
  }

  /** How many have ended so since the start, whether or not they are told of still. */
  endedAs(state: OperationState): number {
    return this.#ended.get(state) ?? 0;
  }

  add(operation: Operation): void {
    this.#byToken.set(operation.token, operation);
  }

  find(token: string, now: number): Operation | undefined {
    this.#forget(now);
    return this.#byToken.get(token);
  }

  /** In the order of their start, those above `key`. */
  after(key: number, now: number): readonly Operation[] {
    this.#forget(now);
    return [...this.#byToken.values()].filter((operation) => operation.key > key);
  }

  /** What ended too long ago goes, and of too many the oldest. */
  #forget(now: number): void {
    const ended = [...this.#byToken.values()].filter(({ endedAt }) => endedAt !== null);
    const tooMany = ended.length - limits.operationsKept;
    for (const [index, { token, endedAt }] of ended.entries()) {
      if (index < tooMany || (endedAt ?? now) + limits.operationKeptMs < now) this.#byToken.delete(token);
    }
  }
}
