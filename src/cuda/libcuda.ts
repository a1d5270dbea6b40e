/**
 * The CUDA driver's library, loaded once in each thread that asks, and how one of its answers becomes an error. The functions
 * themselves are `driver.ts`, and `context.ts` for what needs a context.
 */

import { type Address, addressOf, readText } from "../memory/os/ffi.ts";
import { LibraryMissing, OptionalLibrary } from "../memory/os/optional-library.ts";
import { DriverError, NoDriver, results } from "./driver-error.ts";

export const libraryName = "libcuda.so.1";

let opened: OptionalLibrary | undefined;

/** @throws NoDriver if the loader does not find it. */
export function openLibcuda(): OptionalLibrary {
  try {
    opened ??= OptionalLibrary.open(libraryName);
    return opened;
  } catch (error) {
    if (error instanceof LibraryMissing) throw new NoDriver("no-libcuda", error.message);
    throw error;
  }
}

// CUresult cuGetErrorName(CUresult error, const char **pStr); cuGetErrorString is the same.
const words = {
  cuGetErrorName: { args: ["i32", "u64"], returns: "i32" },
  cuGetErrorString: { args: ["i32", "u64"], returns: "i32" },
} as const;

let bound: ReturnType<typeof bindWords> | undefined;
const bindWords = () => openLibcuda().bind(words);

/** @throws DriverError unless `result` is success, with what the driver says of it. */
export function check(call: string, result: number): void {
  if (result !== results.success) throw toDriverError(call, result);
}

export function toDriverError(call: string, result: number): DriverError {
  bound ??= bindWords();
  const { cuGetErrorName, cuGetErrorString } = bound;
  return new DriverError(call, result, ask(cuGetErrorName, result), ask(cuGetErrorString, result));
}

/** For a number that it does not know the driver answers an error and writes NULL. */
function ask(describe: (result: number, out: Address) => number, result: number): string | null {
  const out = Buffer.alloc(8);
  if (describe(result, addressOf(out)) !== results.success) return null;
  const address = out.readBigUInt64LE();
  return address === 0n ? null : readText(address as Address);
}

/** A text that a call has written into `memory`, up to its first zero. */
export function toText(memory: Buffer): string {
  const end = memory.indexOf(0);
  return memory.toString("utf8", 0, end < 0 ? memory.length : end);
}
