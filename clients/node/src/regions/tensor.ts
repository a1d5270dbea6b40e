/** A tensor over mapped bytes: the same memory as a typed array, as raw bytes, or as a reference. */

import type { LockOptions } from "../options.ts";
import "../dispose.ts";
import { inspect } from "node:util";
import { checkOptions } from "../check/options.ts";
import * as tables from "../check/tables.ts";
import { quote } from "../check/value.ts";
import { type ArrayDtype, type ArrayTypes, arrayOf, type Dtype, type TensorArray } from "../dtype.ts";
import { TensordError } from "../errors.ts";
import type { TensorInfo } from "../http/wire.ts";
import { isSealedAt } from "../memory/attach.ts";
import type { Attached } from "../memory/attached.ts";
import { maxViewBytes } from "../memory/pages.ts";
import { type TensorReference, toReference } from "./reference.ts";
import { type LockKind, lockTensor, type TensorLock } from "./tensor-lock.ts";

/**
 * A named, typed slice of a mapped region. What it hands out shares the region's memory and stays valid, and keeps the
 * pages and the lease, until it is collected; also after the region or client is closed, when the methods here throw
 * `closed`.
 */
export class Tensor {
  readonly #attached: Attached;
  readonly #info: TensorInfo;
  readonly #target: TensorInfo | undefined;

  /** @param target of an alias: the tensor whose bytes these are. */
  constructor(attached: Attached, info: TensorInfo, target?: TensorInfo) {
    this.#attached = attached;
    this.#info = info;
    this.#target = target !== undefined && isWithin(info, target) ? target : undefined;
  }

  get name(): string {
    return this.#info.name;
  }

  /** Its element type, by safetensors' name, or by one that a newer server has. */
  get dtype(): Dtype | (string & {}) {
    return this.#info.dtype;
  }

  /** In elements, outermost first; `[]` is a scalar. */
  get shape(): readonly number[] {
    return this.#info.shape;
  }

  /** From the start of the region's file. */
  get byteOffset(): number {
    return this.#info.byteOffset;
  }

  get byteSize(): number {
    return this.#info.byteSize;
  }

  /**
   * The tensor whose bytes these are, if they are another's; else null. The arrays of both are then over one buffer, unless
   * that other one is larger than any buffer.
   */
  get aliasOf(): string | null {
    return this.#info.aliasOf;
  }

  /** Whether writes reach the other processes. */
  get isWritable(): boolean {
    return this.#attached.access === "write";
  }

  /**
   * Whether `array()` copies: typed arrays want elements at multiples of their size, and this tensor's are not. No region
   * that tensord laid out has such tensors. Writing into the copy changes nothing else: use `bytes()`.
   */
  get isCopied(): boolean {
    return this.byteOffset % (arrayOf(this.dtype)?.BYTES_PER_ELEMENT ?? 1) !== 0;
  }

  /**
   * All elements in row-major order, as the typed array that the README's table has for the dtype. Naming the dtype gives
   * the type, and is checked; `"U16"` shows the bits of an F16 on every runtime.
   * @throws TensordError `closed`; `feature-unavailable` for more than 4 GiB (use `window`) and for types of less than
   *   8 bits (use `bytes`); `validation-failed` if the tensor has another dtype
   */
  array(): TensorArray;
  array<Name extends ArrayDtype>(dtype: Name): ArrayTypes[Name];
  array(dtype?: ArrayDtype): TensorArray {
    const asBits = dtype === "U16" && this.dtype === "F16";
    if (dtype !== undefined && dtype !== this.dtype && !asBits) {
      throw new TensordError(
        "validation-failed",
        `Cannot show tensor "${this.name}" as ${quote(dtype)}: it is ${this.dtype}`,
      );
    }
    const Kind = arrayOf(asBits ? dtype : this.dtype);
    if (Kind === undefined) {
      throw new TensordError("feature-unavailable", `Cannot show ${this.dtype} in a typed array: there is none`, {
        hint: "use bytes()",
      });
    }
    const { buffer, byteOffset, byteLength } = this.isCopied ? this.bytes().slice() : this.bytes();
    return new Kind(buffer, byteOffset, byteLength / Kind.BYTES_PER_ELEMENT) as unknown as TensorArray;
  }

  /**
   * The raw bytes, whatever the dtype.
   * @throws TensordError `closed`; `feature-unavailable` for more than 4 GiB: use `window`
   */
  bytes(): Uint8Array<ArrayBuffer> {
    return this.window(0, this.byteSize);
  }

  /**
   * A part of the raw bytes; `byteOffset` counts from the tensor's first byte. The way to a tensor that is larger than any
   * typed array.
   * @throws TensordError `closed`; `validation-failed` outside the tensor; `feature-unavailable` for more than 4 GiB
   */
  window(byteOffset: number, byteSize: number): Uint8Array<ArrayBuffer> {
    this.#attached.check();
    const isInside =
      [byteOffset, byteSize].every((value) => Number.isSafeInteger(value) && value >= 0) &&
      byteOffset + byteSize <= this.byteSize;
    if (!isInside) {
      throw new TensordError(
        "validation-failed",
        `Cannot show ${quote(byteSize)} bytes at ${quote(byteOffset)} of tensor "${this.name}": it has ${this.byteSize} bytes`,
      );
    }
    if (byteSize > maxViewBytes) {
      throw new TensordError(
        "feature-unavailable",
        `Cannot show ${byteSize} bytes of tensor "${this.name}" at once: JavaScript views end at ${maxViewBytes}`,
        { hint: "go through it with tensor.window(byteOffset, byteSize)" },
      );
    }
    const at = this.byteOffset + byteOffset;
    const target = this.#target;
    if (target === undefined) return new Uint8Array(this.#attached.buffer(at, byteSize));
    return new Uint8Array(this.#attached.buffer(target.byteOffset, target.byteSize), at - target.byteOffset, byteSize);
  }

  /**
   * What another process of this machine needs to map this tensor without the server: `client.open(reference)` there, in
   * any language. It keeps nothing alive.
   * @throws TensordError `closed`; `region-not-sealed` for a hand-off that is still open, which ends with the session of who
   *   builds it
   */
  ref(): TensorReference {
    this.#attached.check();
    const { place, isOpenHandOff } = this.#attached;
    if (isOpenHandOff && !isSealedAt(place)) {
      throw new TensordError(
        "region-not-sealed",
        `Cannot refer to tensor ${quote(this.name)} of ${place.region}: it is a hand-off that is still open, and ends with ` +
          "its maker's session; want it sealed",
        { hint: "seal() the region first, or give it another owner than lingerMs: 0" },
      );
    }
    return toReference(place, this.#info);
  }

  /**
   * Waits until nobody writes, and keeps writers out until the lock is released: those, in any process and language, who
   * lock as well. The kernel frees the lock of a killed process. Locks are not re-entrant; an alias has that of its bytes.
   * @throws TensordError `deadline-exceeded`, `stale-ref` if the region was deleted, `closed`
   */
  lockRead(options: LockOptions = {}): Promise<TensorLock> {
    return this.#lock("read", options);
  }

  /** As `lockRead`, and keeps readers out as well. @throws TensordError also `region-sealed` */
  lockWrite(options: LockOptions = {}): Promise<TensorLock> {
    return this.#lock("write", options);
  }

  /** As `console.log` shows it. */
  [inspect.custom](): string {
    const state = this.#attached.isClosed ? ", closed" : this.isWritable ? ", writable" : "";
    const name = this.name === "" ? "" : ` ${JSON.stringify(this.name)}`;
    const alias = this.aliasOf === null ? "" : shownAlias(this.aliasOf);
    return `Tensor${name} ${this.dtype} [${this.shape.join(", ")}]${alias} of ${this.#attached.place.region}${state}`;
  }

  async #lock(kind: LockKind, options: LockOptions): Promise<TensorLock> {
    checkOptions("lock a tensor", tables.lock, options);
    this.#attached.check();
    const { place } = this.#attached;
    const shown = `tensor "${this.name}" of ${place.region}`;
    return lockTensor(kind, { place, byteOffset: this.byteOffset, byteSize: this.byteSize, shown }, options);
  }
}

/** How an alias is shown, behind its shape. */
export function shownAlias(aliasOf: string): string {
  return ` (alias of ${JSON.stringify(aliasOf)})`;
}

/** Whether a view of the alias can be one of its tensor's buffer. */
function isWithin(alias: TensorInfo, target: TensorInfo): boolean {
  const offset = alias.byteOffset - target.byteOffset;
  const multiple = arrayOf(alias.dtype)?.BYTES_PER_ELEMENT ?? 1;
  const isInside = offset >= 0 && offset + alias.byteSize <= target.byteSize;
  return isInside && offset % multiple === 0 && target.byteSize <= maxViewBytes;
}

/** A tensor mapped from a reference. It owns its mapping: close it, or declare it with `using`. */
export class OpenedTensor extends Tensor {
  readonly #attached: Attached;

  constructor(attached: Attached, info: TensorInfo) {
    super(attached, info);
    this.#attached = attached;
  }

  get isClosed(): boolean {
    return this.#attached.isClosed;
  }

  /** Lets go of the region. Safe to call twice. Arrays taken from it stay valid and keep it mapped. */
  close(): void {
    this.#attached.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
