/** A slot that a ring's owner has taken: filled, and then published for others to read, or lent for them to write into. */

import type { LockOptions, PackedOptions } from "../options.ts";
import "../dispose.ts";
import { setImmediate } from "node:timers/promises";
import * as kinds from "../check/kinds.ts";
import { checkOptions } from "../check/options.ts";
import * as tables from "../check/tables.ts";
import { checkArgument } from "../check/value.ts";
import { type ArrayDtype, type ArrayTypes, arrayOf, byteSizeOf, type Dtype } from "../dtype.ts";
import { TensordError } from "../errors.ts";
import { retryWithin } from "../memory/lock.ts";
import { type TensorReference, toReference } from "../regions/reference.ts";
import { type TensorSource, toSource } from "../regions/sources.ts";
import { Call } from "./call.ts";
import { requestKind, tensorKind } from "./packed.ts";
import type { RingFile } from "./ring-file.ts";

/** `filling`: locked, nobody else reads or writes. `lent`: unlocked, and still ours. `over`: the ring's again. */
type State = "filling" | "lent" | "over";

interface Layout {
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly byteSize: number;
}

const action = "lay out a slot";

/** Between two windows others get their turn of the event loop. */
const windowBytes = 8 * 1024 * 1024;

/** Close it, or declare it with `using`; one that was published is closed already. */
export class Slot {
  readonly #file: RingFile;
  readonly #index: number;
  readonly #giveUp: () => void;
  #state: State = "filling";
  #generation: number;
  #layout: Layout | undefined;

  /** Takes over a slot that is locked, and makes every earlier reference to it stale. */
  constructor(file: RingFile, index: number, giveUp: () => void) {
    this.#file = file;
    this.#index = index;
    this.#giveUp = giveUp;
    this.#generation = file.raise(index);
  }

  /**
   * The slot's bytes as a tensor of this dtype and shape, to be written into, or, of a lent slot, to be read once the other
   * process says that it is done. It shows what is there: zeros, or an older tensor. Do not write after `publish`.
   * @throws TensordError `validation-failed` if it is larger than the slot; `closed`
   */
  array<Name extends ArrayDtype>(dtype: Name, shape: readonly number[]): ArrayTypes[Name] {
    checkArgument(action, "the dtype", dtype, kinds.dtype);
    const Kind = arrayOf(dtype);
    if (Kind === undefined) {
      throw new TensordError("feature-unavailable", `Cannot show ${dtype} in a typed array: there is none`, {
        hint: "use bytes(dtype, shape)",
      });
    }
    const { buffer, byteOffset, byteLength } = this.#layOut(dtype, shape);
    return new Kind(buffer, byteOffset, byteLength / Kind.BYTES_PER_ELEMENT) as unknown as ArrayTypes[Name];
  }

  /** As `array`, as raw bytes: also for what no typed array shows. Throws as `array` does. */
  bytes(dtype: Dtype, shape: readonly number[]): Uint8Array<ArrayBuffer> {
    return this.#layOut(dtype, shape);
  }

  /** Copies a tensor into the slot; without content, its bytes stay what they are. Throws as `array` does. */
  async write(source: TensorSource): Promise<void> {
    const { dtype, shape, bytes } = toSource(source);
    const target = this.#layOut(dtype, shape);
    if (bytes === undefined) return;
    for (let start = 0; start < bytes.byteLength; start += windowBytes) {
      if (start > 0) await setImmediate();
      target.set(bytes.subarray(start, start + windowBytes), start);
    }
  }

  /**
   * Lets others read it, and gives the slot back to the ring. The reference is good until the ring comes round to it again;
   * whoever has it open then keeps it. With `packed` it has 128 bytes, which `receiver.open` takes.
   * @throws TensordError `validation-failed` if nothing was laid out in it; `closed`
   */
  publish(options: PackedOptions & { readonly packed: true }): Uint8Array<ArrayBuffer>;
  publish(options?: PackedOptions & { readonly packed?: false | undefined }): TensorReference;
  publish(options: PackedOptions = {}): TensorReference | Uint8Array<ArrayBuffer> {
    checkOptions("publish a slot", tables.packed, options);
    const reference = this.#reference(options);
    this.close();
    return reference;
  }

  /**
   * As `publish`, and tells those who receive from the ring of it.
   * @throws TensordError as `publish`, and `validation-failed` for more than 8 dimensions
   */
  send(): void {
    const entry = this.#pack(tensorKind);
    this.close();
    this.#file.bell.ring(entry);
  }

  /**
   * Sends the tensor as a request, whose result one of those who receive writes into the same slot, which is the call's from here on.
   * @throws TensordError as `send`
   */
  call(): Call {
    const entry = this.#pack(requestKind);
    this.#state = "over";
    const call = new Call(this.#file, this.#index, this.#generation, this.#giveUp);
    this.#file.unlock(this.#index);
    this.#file.bell.ring(entry);
    return call;
  }

  /**
   * Lets others read it, or write into it, and keeps the slot: the reference stays good until `takeBack` or `close`. `packed`, and what it
   * throws, as with `publish`.
   */
  lend(options: PackedOptions & { readonly packed: true }): Uint8Array<ArrayBuffer>;
  lend(options?: PackedOptions & { readonly packed?: false | undefined }): TensorReference;
  lend(options: PackedOptions = {}): TensorReference | Uint8Array<ArrayBuffer> {
    checkOptions("lend a slot", tables.packed, options);
    const reference = this.#reference(options);
    this.#file.unlock(this.#index);
    this.#state = "lent";
    return reference;
  }

  /** Waits for whoever has the lent slot open, and makes its reference stale. @throws TensordError `deadline-exceeded` */
  async takeBack(options: LockOptions = {}): Promise<void> {
    checkOptions("take a slot back", tables.lock, options);
    this.#check("lent");
    await retryWithin(options, `take back a slot of ring ${this.#file.place.region}`, () => {
      this.#check("lent");
      return this.#file.tryLock(this.#index) || undefined;
    });
    this.#state = "filling";
    this.#generation = this.#file.raise(this.#index);
  }

  /** Gives the slot back to the ring. Safe to call twice. */
  close(): void {
    if (this.#state === "over") return;
    if (this.#state === "filling" && !this.#file.isClosed) this.#file.unlock(this.#index);
    this.#state = "over";
    this.#giveUp();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #layOut(dtype: Dtype, shape: readonly number[]): Uint8Array<ArrayBuffer> {
    checkArgument(action, "the dtype", dtype, kinds.dtype);
    checkArgument(action, "the shape", shape, kinds.shape);
    if (this.#state === "over") throw this.#wrongState("filling");
    const byteSize = byteSizeOf(dtype, shape);
    const { slotBytes } = this.#file;
    if (byteSize > slotBytes) {
      throw new TensordError(
        "validation-failed",
        `Cannot put ${dtype} [${shape}] into a slot: it has ${byteSize} bytes, the slot ${slotBytes}`,
        { hint: "make the ring with larger slotBytes" },
      );
    }
    this.#layout = { dtype, shape: [...shape], byteSize };
    return this.#file.bytes(this.#index, byteSize);
  }

  #reference({ packed = false }: PackedOptions): TensorReference | Uint8Array<ArrayBuffer> {
    if (packed) return Uint8Array.from(this.#pack(tensorKind));
    return toReference(this.#file.place, this.#filled(), this.#generation);
  }

  #pack(kind: number): Buffer {
    return this.#file.pack({ ...this.#filled(), kind, generation: this.#generation });
  }

  #filled() {
    this.#check("filling");
    if (this.#layout !== undefined) return { ...this.#layout, byteOffset: this.#file.offsetOf(this.#index) };
    throw new TensordError("validation-failed", "Cannot publish the slot: nothing was laid out in it", {
      hint: "call array(dtype, shape) or write(source) first",
    });
  }

  #check(want: State): void {
    if (this.#state !== want) throw this.#wrongState(want);
  }

  #wrongState(want: State): TensordError {
    return new TensordError("closed", `Cannot use the slot: it is ${this.#state}, want ${want}`, {
      hint: this.#state === "lent" ? "take it back first" : "acquire another",
    });
  }
}
