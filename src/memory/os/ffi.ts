/**
 * The one seam to C: loads a library and takes addresses. It knows no C function; `libc.ts` and `src/cuda` declare theirs and
 * check what they pass.
 */

import { CString, dlopen, type FFIFunction, type Library, linkSymbols, type Pointer, ptr, read } from "bun:ffi";

/** An address in this process. A `bigint`, because a `number` would round above 2^53 and `undefined` would become NULL. */
export type Address = bigint & { readonly address: unique symbol };

/** C functions by name, with their arguments and results. */
export type Declarations = Readonly<Record<string, FFIFunction>>;
/** They, to be called. */
export type Functions<Symbols extends Declarations> = Library<Symbols>["symbols"];

/**
 * Loads `path` and binds `symbols`; one missing symbol fails the whole load. A library that may be missing is never loaded
 * here, since Bun looks for it in the working directory at last, and runs what lies there: `optional-library.ts` is for that.
 */
export function loadLibrary<const Symbols extends Declarations>(path: string, symbols: Symbols): Functions<Symbols> {
  return dlopen(path, symbols).symbols;
}

/** Binds `symbols` to functions that lie at addresses. They must stay loaded. */
export function linkFunctions<const Symbols extends Declarations>(symbols: Symbols): Functions<Symbols> {
  return linkSymbols(symbols).symbols;
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

/** A copy of the text that ends with a zero at `address`, which must be one. */
export function readText(address: Address): string {
  return String(new CString(Number(address) as Pointer));
}
