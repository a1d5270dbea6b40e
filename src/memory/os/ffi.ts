/**
 * The one seam to C: loads a library and takes addresses. It knows no C function; `libc.ts` (and later the CUDA driver)
 * declare theirs and check what they pass.
 */

import { dlopen, type FFIFunction, type Library, type Pointer, ptr, read } from "bun:ffi";

/** An address in this process. A `bigint`, because a `number` would round above 2^53 and `undefined` would become NULL. */
export type Address = bigint & { readonly address: unique symbol };

/** Loads `path` and binds `symbols`; one missing symbol fails the whole load, so optional ones get a load of their own. */
export function loadLibrary<const Symbols extends Record<string, FFIFunction>>(
  path: string,
  symbols: Symbols,
): Library<Symbols>["symbols"] {
  return dlopen(path, symbols).symbols;
}

/**
 * The address of `memory`, which must be made by `Buffer.alloc` (not pooled, at least one byte) and be held in a named
 * local until the C call has returned, or the collector may move or free it.
 */
export function addressOf(memory: Buffer): Address {
  // Touching `.buffer` once pins a small typed array's bytes; before that its address may change.
  void memory.buffer;
  return BigInt(ptr(memory)) as Address;
}

/** Reads the C `int` at `address`, which must stay valid (errno's place does, for as long as its thread lives). */
export function readInt(address: Address): number {
  return read.i32(Number(address) as Pointer, 0);
}
