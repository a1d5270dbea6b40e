/**
 * A read or write lock on the bytes of one tensor, across processes and languages (docs/protocol.md, "Read-write locks").
 * Each has an open file description of its own, so that locks of one process exclude each other as well.
 */

import type { LockOptions } from "../options.ts";
import "../dispose.ts";
import { Mismatch, type Place } from "../memory/attach.ts";
import type { HeldFile } from "../memory/held-file.ts";
import { retryWithin, setLock, trySetLock } from "../memory/lock.ts";
import { openFile } from "../memory/open.ts";
import { whileStanding } from "./standing.ts";

export type LockKind = "read" | "write";

/** Held until it is released, or this process ends. Declare it with `using`. */
export class TensorLock {
  readonly kind: LockKind;
  readonly #range: Range;
  #file: HeldFile | undefined;

  /** Takes over the file, in which the range is locked; undefined if there is nothing to lock. */
  constructor(kind: LockKind, range: Range, file: HeldFile | undefined) {
    this.kind = kind;
    this.#range = range;
    this.#file = file;
  }

  get isReleased(): boolean {
    return this.#file === undefined;
  }

  /** Lets the next one in. Safe to call twice. */
  release(): void {
    const file = this.#file;
    if (file === undefined) return;
    this.#file = undefined;
    try {
      setLock(file.fd, "none", this.#range.start, this.#range.length);
    } finally {
      file.close();
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
  const file = await whileStanding(place, () => openForLock(place, kind, options.signal));
  try {
    const attempt = () => trySetLock(file.fd, kind, range.start, range.length) || undefined;
    await retryWithin(options, `${kind}-lock ${shown}`, attempt);
    return new TensorLock(kind, range, file);
  } catch (error) {
    file.close();
    throw error;
  }
}

/** The file at `place`, opened anew for locks on it. @throws TensordError, as `Mismatch` says it */
export async function openForLock(place: Place, kind: LockKind, signal?: AbortSignal | undefined): Promise<HeldFile> {
  try {
    return (await openFile(place, { isWriter: kind === "write", isLeased: false, signal })).file;
  } catch (error) {
    throw error instanceof Mismatch ? error.toError() : error;
  }
}
