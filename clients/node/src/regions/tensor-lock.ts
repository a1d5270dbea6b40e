/**
 * A read or write lock on the bytes of one tensor, across processes and languages (docs/protocol.md, "Read-write locks").
 * Each has an open file description of its own, so that locks of one process exclude each other as well.
 */

import type { LockOptions } from "../options.ts";
import "../dispose.ts";
import { closeSync } from "node:fs";
import { Mismatch, openChecked, type Place } from "../memory/attach.ts";
import { retryWithin, setLock, trySetLock } from "../memory/lock.ts";

export type LockKind = "read" | "write";

/** Held until it is released, or this process ends. Declare it with `using`. */
export class TensorLock {
  readonly kind: LockKind;
  readonly #range: Range;
  #fd: number | undefined;

  /** Takes over the descriptor, on which the range is locked; undefined if there is nothing to lock. */
  constructor(kind: LockKind, range: Range, fd: number | undefined) {
    this.kind = kind;
    this.#range = range;
    this.#fd = fd;
  }

  get isReleased(): boolean {
    return this.#fd === undefined;
  }

  /** Lets the next one in. Safe to call twice. */
  release(): void {
    const fd = this.#fd;
    if (fd === undefined) return;
    this.#fd = undefined;
    try {
      setLock(fd, "none", this.#range.start, this.#range.length);
    } finally {
      closeSync(fd);
    }
  }

  [Symbol.dispose](): void {
    this.release();
  }
}

interface Range {
  readonly start: bigint;
  readonly length: bigint;
}

/** What to lock: a range of bytes of the file at `place`, and how messages call it. */
export interface Lockable {
  readonly place: Place;
  readonly byteOffset: number;
  readonly byteSize: number;
  readonly shown: string;
}

/**
 * Waits for the lock. A tensor of no bytes locks nothing.
 * @throws TensordError `deadline-exceeded`; `region-sealed` for a write lock; `stale-ref`, `access-denied`
 */
export async function lockTensor(kind: LockKind, lockable: Lockable, options: LockOptions): Promise<TensorLock> {
  const { place, byteOffset, byteSize, shown } = lockable;
  const range = { start: BigInt(byteOffset), length: BigInt(byteSize) };
  if (byteSize === 0) return new TensorLock(kind, range, undefined);
  const fd = openForLock(place, kind);
  try {
    const attempt = () => trySetLock(fd, kind, range.start, range.length) || undefined;
    await retryWithin(options, `${kind}-lock ${shown}`, attempt);
    return new TensorLock(kind, range, fd);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** A descriptor of its own for locks on the file at `place`. @throws TensordError, as `Mismatch` says it */
export function openForLock(place: Place, kind: LockKind): number {
  try {
    return openChecked(place, kind === "write");
  } catch (error) {
    throw error instanceof Mismatch ? error.toError() : error;
  }
}
