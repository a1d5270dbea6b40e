/** The table of element types: safetensors' names, their bits, and the typed array that shows each. */

import { TensordError } from "./errors.ts";

/** `Float16Array` where the runtime has it (Bun, Node 24), and `Uint16Array` with the bits where not (Node 20, 22). */
type HalfArray = typeof globalThis extends { Float16Array: { prototype: infer Type } }
  ? Type | Uint16Array<ArrayBuffer>
  : Uint16Array<ArrayBuffer>;

/** What shows each dtype. bf16 are their upper 16 bits of an f32, fp8 their byte, C64 pairs of real and imaginary part. */
export interface ArrayTypes {
  readonly BOOL: Uint8Array<ArrayBuffer>;
  readonly U8: Uint8Array<ArrayBuffer>;
  readonly I8: Int8Array<ArrayBuffer>;
  readonly F8_E5M2: Uint8Array<ArrayBuffer>;
  readonly F8_E4M3: Uint8Array<ArrayBuffer>;
  readonly F8_E8M0: Uint8Array<ArrayBuffer>;
  readonly F8_E4M3FNUZ: Uint8Array<ArrayBuffer>;
  readonly F8_E5M2FNUZ: Uint8Array<ArrayBuffer>;
  readonly I16: Int16Array<ArrayBuffer>;
  readonly U16: Uint16Array<ArrayBuffer>;
  readonly F16: HalfArray;
  readonly BF16: Uint16Array<ArrayBuffer>;
  readonly I32: Int32Array<ArrayBuffer>;
  readonly U32: Uint32Array<ArrayBuffer>;
  readonly F32: Float32Array<ArrayBuffer>;
  readonly C64: Float32Array<ArrayBuffer>;
  readonly F64: Float64Array<ArrayBuffer>;
  readonly I64: BigInt64Array<ArrayBuffer>;
  readonly U64: BigUint64Array<ArrayBuffer>;
}

/** The dtypes that a typed array can show. */
export type ArrayDtype = keyof ArrayTypes;

/** A dtype, as safetensors names it. Those of less than 8 bits have no typed array. */
export type Dtype = ArrayDtype | "F4" | "F6_E2M3" | "F6_E3M2";

/** Any typed array that `array()` returns. */
export type TensorArray = ArrayTypes[ArrayDtype];

export const maxDimensions = 64;

interface ArrayConstructor {
  readonly BYTES_PER_ELEMENT: number;
  new (buffer: ArrayBuffer, byteOffset?: number, length?: number): ArrayBufferView;
}

const runtimeHalf = (globalThis as { readonly Float16Array?: ArrayConstructor }).Float16Array;

const table: ReadonlyMap<string, { readonly bits: number; readonly array?: ArrayConstructor }> = new Map([
  ["BOOL", { bits: 8, array: Uint8Array }],
  ["F4", { bits: 4 }],
  ["F6_E2M3", { bits: 6 }],
  ["F6_E3M2", { bits: 6 }],
  ["U8", { bits: 8, array: Uint8Array }],
  ["I8", { bits: 8, array: Int8Array }],
  ["F8_E5M2", { bits: 8, array: Uint8Array }],
  ["F8_E4M3", { bits: 8, array: Uint8Array }],
  ["F8_E8M0", { bits: 8, array: Uint8Array }],
  ["F8_E4M3FNUZ", { bits: 8, array: Uint8Array }],
  ["F8_E5M2FNUZ", { bits: 8, array: Uint8Array }],
  ["I16", { bits: 16, array: Int16Array }],
  ["U16", { bits: 16, array: Uint16Array }],
  ["F16", { bits: 16, array: runtimeHalf ?? Uint16Array }],
  ["BF16", { bits: 16, array: Uint16Array }],
  ["I32", { bits: 32, array: Int32Array }],
  ["U32", { bits: 32, array: Uint32Array }],
  ["F32", { bits: 32, array: Float32Array }],
  ["C64", { bits: 64, array: Float32Array }],
  ["F64", { bits: 64, array: Float64Array }],
  ["I64", { bits: 64, array: BigInt64Array }],
  ["U64", { bits: 64, array: BigUint64Array }],
]);

/** What a typed array without a dtype beside it is stored as, by the array's own word for itself. */
const byArray: ReadonlyMap<string, Dtype> = new Map([
  ["Int8Array", "I8"],
  ["Uint8Array", "U8"],
  ["Uint8ClampedArray", "U8"],
  ["Int16Array", "I16"],
  ["Uint16Array", "U16"],
  ["Float16Array", "F16"],
  ["Int32Array", "I32"],
  ["Uint32Array", "U32"],
  ["Float32Array", "F32"],
  ["Float64Array", "F64"],
  ["BigInt64Array", "I64"],
  ["BigUint64Array", "U64"],
]);

export function isDtype(name: string): name is Dtype {
  return table.has(name);
}

/** The kind of a typed array, which subclasses (`Buffer`) and other realms share with it: "Float32Array". */
export function kindOf(array: ArrayBufferView): string {
  return Object.prototype.toString.call(array).slice("[object ".length, -1);
}

/** The dtype of a typed array, or undefined if regions hold nothing of its kind. */
export function dtypeOf(array: ArrayBufferView): Dtype | undefined {
  return byArray.get(kindOf(array));
}

/** The typed array that shows a dtype, or undefined if none does. */
export function arrayOf(dtype: string): ArrayConstructor | undefined {
  return table.get(dtype)?.array;
}

/** Bytes of an element, and what its place is a multiple of; 1 for those that share a byte with others. */
export function elementBytesOf(dtype: Dtype): number {
  return Math.max(1, (table.get(dtype)?.bits ?? 8) / 8);
}

/** The kinds of typed arrays that content of a dtype comes in: its own, raw bytes, and, on every runtime, an F16's bits. */
export function kindsOf(dtype: Dtype): string[] {
  const own = arrayOf(dtype)?.name ?? "Uint8Array";
  return [...new Set([own, ...(dtype === "F16" ? ["Uint16Array"] : []), "Uint8Array"])];
}

/**
 * Bytes of a tensor; `shape` in elements.
 * @throws TensordError `validation-failed` for an unknown dtype, bits that are no whole bytes, or too many.
 */
export function byteSizeOf(dtype: string, shape: readonly number[]): number {
  const row = table.get(dtype);
  if (row === undefined) {
    throw new TensordError(
      "validation-failed",
      `Cannot have elements of type ${dtype}: want ${[...table.keys()].join(", ")}`,
    );
  }
  // What ends below 2^53 was never above it, unless a size is 0.
  const product = shape.reduce((bits, size) => bits * size, row.bits);
  if (product <= Number.MAX_SAFE_INTEGER && product % 8 === 0) return product / 8;
  // Exact: a product of sizes may pass 2^53 long before it is refused.
  const bits = shape.reduce((product, size) => product * BigInt(size), BigInt(row.bits));
  const bytes = bits / 8n;
  if (bits % 8n === 0n && bytes <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(bytes);
  const state = bits % 8n === 0n ? "it would be too large" : `its ${bits} bits are no whole bytes`;
  throw new TensordError("validation-failed", `Cannot have ${dtype} of shape [${shape}]: ${state}`.slice(0, 300));
}
