/**
 * The table of element types, by the names and widths of safetensors 0.8.0. How elements look inside (exponent, mantissa,
 * byte order) is the business of those who read them.
 */

/** Bits of one element. Bits and not bytes, because F4 and F6 elements share bytes with their neighbours. */
export const dtypeBits = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
} as const;

export type Dtype = keyof typeof dtypeBits;

/** Every dtype, in the table's order; never empty, as `z.enum` asks for. */
export const dtypes = Object.keys(dtypeBits) as unknown as readonly [Dtype, ...Dtype[]];

/** Whether a word from outside names a dtype. `toString` and its like do not. */
export function isDtype(word: string): word is Dtype {
  return Object.hasOwn(dtypeBits, word);
}
