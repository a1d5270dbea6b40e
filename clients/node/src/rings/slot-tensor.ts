/** A tensor in a slot of a ring, as those see it who opened its reference: the slot is theirs until they close it. */

import { checkOptions } from "../check/options.ts";
import * as tables from "../check/tables.ts";
import { TensordError } from "../errors.ts";
import type { Attached } from "../memory/attached.ts";
import type { LockOptions } from "../options.ts";
import type { TensorReference } from "../regions/reference.ts";
import { OpenedTensor } from "../regions/tensor.ts";
import type { TensorLock } from "../regions/tensor-lock.ts";

/**
 * The slot stays locked until `close`, so that its owner does not fill it meanwhile. Arrays that are kept longer show what
 * the owner writes next: copy what you keep with `slice()`.
 */
export class SlotTensor extends OpenedTensor {
  readonly #reference: TensorReference;
  readonly #slotLock: TensorLock;

  constructor(attached: Attached, reference: TensorReference, slotLock: TensorLock) {
    super(attached, { name: "", aliasOf: null, logical: null, ...reference });
    this.#reference = reference;
    this.#slotLock = slotLock;
    // If nobody closes it, the collector does.
    attached.whenOver(() => slotLock.release());
  }

  /** The reference that it was opened from: good for as long as the slot's owner lets it be. */
  override ref(): TensorReference {
    super.ref();
    return this.#reference;
  }

  override lockRead(options: LockOptions = {}): Promise<TensorLock> {
    return this.#refuse(options);
  }

  override lockWrite(options: LockOptions = {}): Promise<TensorLock> {
    return this.#refuse(options);
  }

  override close(): void {
    this.#slotLock.release();
    super.close();
  }

  async #refuse(options: LockOptions): Promise<never> {
    checkOptions("lock a tensor", tables.lock, options);
    throw new TensordError("feature-unavailable", "Cannot lock a tensor in a slot: opening it has locked the slot", {
      hint: "open it with { writable: true } to have it alone",
    });
  }
}
