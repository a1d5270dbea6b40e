/** Bytes of which the caller says what they are: tensors one after the other, or nothing. Pure. */

import { elementBytes } from "../../memory/layout/aliases.ts";
import { type TensorSpec, tensorByteSize } from "../../memory/layout/layout.ts";
import { checkTensorName } from "../../memory/layout/tensor-name.ts";
import { limits } from "../../memory/limits.ts";
import { quote } from "../../memory/naming.ts";
import type { FileTensor, Parsed } from "./format.ts";
import { invalid } from "./refusal.ts";

/** A tensor of a raw file. */
export interface RawTensor extends Pick<TensorSpec, "name" | "dtype" | "shape"> {
  /** From the start of the file; right after the tensor before it unless it says so. */
  readonly byteOffset?: number | undefined;
}

/** @throws TensordError `invalid-model-file` where the file is not what was said, `validation-failed` of a name or shape. */
export function toRaw(given: readonly RawTensor[], byteSize: number): Parsed {
  if (given.length > limits.regionTensors) {
    throw invalid(`it is said to have ${given.length} tensors, want at most ${limits.regionTensors}`, hint);
  }
  const tensors: FileTensor[] = [];
  const names = new Set<string>();
  let end = 0;
  for (const { name, dtype, shape, byteOffset = end } of given) {
    checkTensorName(name);
    if (names.has(name)) throw invalid(`the tensor name ${quote(name)} occurs twice, want each name once`, hint);
    names.add(name);
    if (!Number.isSafeInteger(byteOffset) || byteOffset < end) {
      throw invalid(`tensor ${quote(name)} is said to begin at ${byteOffset}, want a whole number from ${end}`, hint);
    }
    const size = tensorByteSize({ name, dtype, shape });
    tensors.push({ name, dtype, shape, byteOffset, byteSize: size, aligned: byteOffset % elementBytes(dtype) === 0 });
    end = byteOffset + size;
  }
  if (given.length > 0 && end !== byteSize) {
    throw invalid(`it has ${byteSize} bytes, want ${end} by the tensors that were given`, hint);
  }
  return { tensors, metadata: {}, dataOffset: tensors[0]?.byteOffset ?? 0, byteSize };
}

const hint = "Give the tensors that the file has, in its order, to its last byte.";
