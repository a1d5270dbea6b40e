/** Typed arrays over a part of a slot: what `Tensor` is of a region. */

import { quote } from "../check/value.ts";
import { type ArrayDtype, arrayOf, type TensorArray } from "../dtype.ts";
import { TensordError } from "../errors.ts";
import type { Shaped } from "./packed.ts";

/**
 * All elements in row-major order. `wanted`: the dtype that the caller expects; `U16` shows the bits of an F16.
 * @throws TensordError `validation-failed` if it is another; `feature-unavailable` if no typed array shows it
 */
export function showArray(
  buffer: ArrayBuffer,
  offset: number,
  { dtype, byteSize }: Shaped,
  wanted: ArrayDtype | undefined,
): TensorArray {
  const asBits = wanted === "U16" && dtype === "F16";
  if (wanted !== undefined && wanted !== dtype && !asBits) {
    throw new TensordError("validation-failed", `Cannot show a tensor of a ring as ${quote(wanted)}: it is ${dtype}`);
  }
  const Kind = arrayOf(asBits ? "U16" : dtype);
  if (Kind === undefined) {
    throw new TensordError("feature-unavailable", `Cannot show ${dtype} in a typed array: there is none`, {
      hint: "use bytes()",
    });
  }
  return new Kind(buffer, offset, byteSize / Kind.BYTES_PER_ELEMENT) as unknown as TensorArray;
}

export function showBytes(buffer: ArrayBuffer, offset: number, byteSize: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(buffer, offset, byteSize);
}
