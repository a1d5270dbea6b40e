/** What a caller may hand to `create`, the wire form of it, and the copy into a fresh region. Nothing is sent from here. */

import { setImmediate } from "node:timers/promises";
import { arrayOf, byteSizeOf, type Dtype, dtypeOf, kindOf } from "../dtype.ts";
import { TensordError } from "../errors.ts";
import type { TensorRequest } from "../http/wire.ts";
import { populateForWriting, SystemError, viewAt } from "../memory/libc.ts";

/** A tensor to make: its dtype, its shape in elements, and its content, or zeros to be written. */
export interface TensorSpec {
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** The typed array of that dtype, in row-major order, or the raw bytes as a `Uint8Array`. */
  readonly data?: NodeJS.TypedArray;
}

/** A typed array is one dimension of its own type. */
export type TensorSource = NodeJS.TypedArray | TensorSpec;

/** One tensor, which is named `data`, or several by their names. */
export type RegionSource = TensorSource | { readonly [name: string]: TensorSource };

/** A tensor to be stored. Without `bytes` it stays zeros. */
export interface Source {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array | undefined;
}

const loneTensor = "data";

/** Between two windows others get their turn of the event loop: about 3 ms a window. */
const windowBytes = 8 * 1024 * 1024;
/** Below this a few page faults cost less than a system call. */
const populateBytes = 64 * 1024;

/** @throws TensordError `validation-failed` */
export function toSources(data: RegionSource): Source[] {
  if (isTensorSource(data)) return [toSource(data)];
  return Object.entries(data).map(([name, source]) => toSource(source, name));
}

/** The tensors as a create sends them. */
export function toSpecs(sources: readonly Source[]): TensorRequest[] {
  return sources.map(({ name, dtype, shape }) => ({ name, dtype, shape }));
}

function isTensorSource(data: RegionSource): data is TensorSource {
  // A region may well have a tensor named "dtype", but that is no string.
  return ArrayBuffer.isView(data) || typeof data.dtype === "string";
}

/** @throws TensordError `validation-failed` */
export function toSource(source: TensorSource, name = loneTensor): Source {
  if (typeof source !== "object" || source === null) {
    throw refused(
      name,
      `it is ${source === null ? "null" : typeof source}, want a typed array or { dtype, shape, data? }`,
    );
  }
  if (ArrayBuffer.isView(source)) {
    const dtype = dtypeOf(source);
    if (dtype === undefined) throw refused(name, `regions hold no ${kindOf(source)}`);
    return { name, dtype, shape: [source.length], bytes: bytesOf(source) };
  }
  const { dtype, shape, data } = source;
  if (!Array.isArray(shape) || !shape.every((size) => Number.isSafeInteger(size) && size >= 0)) {
    throw refused(name, `its shape is [${shape}], want sizes of 0 or more`);
  }
  const byteSize = byteSizeOf(dtype, shape);
  if (data === undefined) return { name, dtype, shape, bytes: undefined };
  if (!ArrayBuffer.isView(data)) throw refused(name, "its data is no typed array");
  const kind = kindOf(data);
  if (kind !== "Uint8Array" && kind !== arrayOf(dtype)?.name) {
    throw refused(
      name,
      `its data is a ${kind}, want ${arrayOf(dtype)?.name ?? "its bytes"} or a Uint8Array for ${dtype}`,
    );
  }
  if (data.byteLength !== byteSize) {
    throw refused(name, `its data has ${data.byteLength} bytes, want ${byteSize} for ${dtype} [${shape}]`);
  }
  return { name, dtype, shape, bytes: bytesOf(data) };
}

function bytesOf({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

function refused(name: string, why: string): TensordError {
  return new TensordError("validation-failed", `Cannot store tensor "${name}": ${why}`);
}

/**
 * Copies all of it to where `addressOf` says, in windows that are populated first, because a page that cannot be had is an
 * error there and a signal at a touch. @throws TensordError `out-of-shared-memory`, `mapping-failed`, the signal's
 * reason; what was copied until then stays
 */
export async function copyTo(
  addressOf: (start: number, size: number) => bigint,
  source: Uint8Array,
  signal?: AbortSignal | undefined,
): Promise<void> {
  const { byteLength } = source;
  for (let start = 0; start < byteLength; start += windowBytes) {
    if (start > 0) await setImmediate();
    signal?.throwIfAborted();
    const part = source.subarray(start, start + windowBytes);
    const address = addressOf(start, part.byteLength);
    if (part.byteLength >= populateBytes) populate(address, part.byteLength);
    // A view of a moment, which nobody else sees: it need not keep the mapping.
    new Uint8Array(viewAt(address, part.byteLength)).set(part);
  }
}

function populate(address: bigint, byteSize: number): void {
  try {
    populateForWriting(address, byteSize);
  } catch (cause) {
    if (!(cause instanceof SystemError)) throw cause;
    if (cause.code === "ENOMEM") {
      throw new TensordError(
        "out-of-shared-memory",
        `Cannot write ${byteSize} bytes into the region: ${cause.message}`,
        {
          hint: "raise this container's memory limit",
          fields: { requestedBytes: byteSize },
          cause,
        },
      );
    }
    throw new TensordError("mapping-failed", `Cannot write into the region: ${cause.message}`, {
      hint: "did somebody truncate the region's file?",
      cause,
    });
  }
}
