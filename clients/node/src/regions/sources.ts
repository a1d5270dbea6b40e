/** What a caller may hand to `create`, the wire form of it, and the copy into a fresh region. Nothing is sent from here. */

import { setImmediate } from "node:timers/promises";
import * as kinds from "../check/kinds.ts";
import { unknown } from "../check/options.ts";
import { checkArgument, isPlain, quote, type Wanted } from "../check/value.ts";
import { byteSizeOf, type Dtype, dtypeOf, kindOf, kindsOf } from "../dtype.ts";
import { TensordError } from "../errors.ts";
import type { TensorRequest } from "../http/wire.ts";
import { populateForWriting, SystemError, viewAt } from "../memory/libc.ts";
import { Tensor } from "./tensor.ts";

/** A tensor to make: its dtype, its shape in elements, and its content, or zeros to be written. */
export interface TensorSpec {
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** The typed array of that dtype, in row-major order, or the raw bytes as a `Uint8Array`; of F16 also their bits. */
  readonly data?: NodeJS.TypedArray;
}

/** A typed array is one dimension of its own type. */
export type TensorSource = NodeJS.TypedArray | TensorSpec;

/**
 * One tensor, which is named `data`, or several by their names. Typed arrays over one buffer that lie whole inside one another
 * are one memory in the region as well (`Tensor.aliasOf`); what overlaps in part is copied apart, with a warning.
 */
export type RegionSource = TensorSource | { readonly [name: string]: TensorSource };

/** One tensor, which is named `data`, or several by their names: on a device, where nothing here writes to them. */
export type DeviceTensors = Omit<TensorSpec, "data"> | { readonly [name: string]: Omit<TensorSpec, "data"> };

/** A tensor to be stored. Without `bytes` it stays zeros; of an alias they are another's, and nothing is to be copied. */
export interface Source {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array | undefined;
  /** The tensor whose bytes these are, and where in it they begin. */
  readonly aliasOf?: string;
  readonly aliasByteOffset?: number;
}

const loneTensor = "data";

/** Between two windows others get their turn of the event loop: about 3 ms a window. */
const windowBytes = 8 * 1024 * 1024;
/** Below this a few page faults cost less than a system call. */
const populateBytes = 64 * 1024;

const specFields = ["dtype", "shape", "data"] as const satisfies readonly (keyof TensorSpec)[];

const region: Wanted = {
  want: "a typed array, { dtype, shape, data? }, or an object of these by their names",
  accepts: (value) => ArrayBuffer.isView(value) || (isPlain(value) && Object.keys(value).length > 0),
  hint: hintFor,
};

const tensor: Wanted = { ...region, want: "a typed array or { dtype, shape, data? }" };

const content: Wanted = { want: "a typed array", accepts: ArrayBuffer.isView, hint: hintFor };

/** How to say what JavaScript has other words for. */
function hintFor(value: unknown): string | undefined {
  if (Array.isArray(value)) return "a list has no element type: new Float32Array(list) has";
  if (value instanceof ArrayBuffer || value instanceof SharedArrayBuffer) {
    return "a buffer has no element type: new Float32Array(buffer) has";
  }
  if (value instanceof Tensor) return "{ dtype, shape, data: tensor.bytes() } has its content";
  return undefined;
}

/** @throws TensordError `validation-failed` */
export function toSources(data: RegionSource): Source[] {
  checkArgument("make a region", "its content", data, region);
  if (isTensorSource(data)) return [toSource(data)];
  return Object.entries(data).map(([name, source]) => toSource(source, name));
}

/** As `toSources`, of what has no content. @throws TensordError `validation-failed` */
export function toEmptySources(tensors: DeviceTensors): Source[] {
  const sources = toSources(tensors as RegionSource);
  const filled = sources.find(({ bytes }) => bytes !== undefined);
  if (filled === undefined) return sources;
  throw new TensordError(
    "validation-failed",
    `Cannot store tensor ${quote(filled.name)} on a device: JavaScript cannot write there, want { dtype, shape }`,
    { hint: "leave its content out, and have the native addon that maps the memory write it" },
  );
}

/** The tensors as a create sends them. */
export function toSpecs(sources: readonly Source[]): TensorRequest[] {
  return sources.map(({ bytes: _, ...spec }) => spec);
}

function isTensorSource(data: RegionSource): data is TensorSource {
  // A region may well have a tensor named "dtype", but that is no string.
  return ArrayBuffer.isView(data) || typeof data.dtype === "string";
}

/** @throws TensordError `validation-failed` */
export function toSource(source: TensorSource, name = loneTensor): Source {
  const action = `store tensor ${quote(name)}`;
  checkArgument(action, "it", source, tensor);
  if (ArrayBuffer.isView(source)) {
    const dtype = dtypeOf(source);
    if (dtype === undefined) throw refused(name, `regions hold no ${kindOf(source)}`);
    return { name, dtype, shape: [source.length], bytes: bytesOf(source) };
  }
  const { dtype, shape, data } = source;
  const other = Object.entries(source).find(([key]) => !(specFields as readonly string[]).includes(key));
  if (other !== undefined) throw unknown(action, ...other, specFields);
  checkArgument(action, "its dtype", dtype, kinds.dtype);
  checkArgument(action, "its shape", shape, kinds.shape);
  const byteSize = byteSizeOf(dtype, shape);
  if (data === undefined) return { name, dtype, shape, bytes: undefined };
  checkArgument(action, "its data", data, content);
  const kind = kindOf(data);
  const wanted = kindsOf(dtype);
  if (!wanted.includes(kind)) throw refused(name, `its data is a ${kind}, want ${wanted.join(" or ")} for ${dtype}`);
  if (data.byteLength !== byteSize) {
    throw refused(name, `its data has ${data.byteLength} bytes, want ${byteSize} for ${dtype} [${shape}]`);
  }
  return { name, dtype, shape, bytes: bytesOf(data) };
}

function bytesOf({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

function refused(name: string, why: string): TensordError {
  return new TensordError("validation-failed", `Cannot store tensor ${quote(name)}: ${why}`);
}

/** Bytes, and where in a region they go. */
export interface PlacedBytes {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/**
 * As `copyTo`, of many: those that lie side by side are written through one view of the pages, since each is a call.
 * @throws as `copyTo` does
 */
export async function copyAll(
  addressOf: (start: number, size: number) => bigint,
  parts: readonly PlacedBytes[],
  signal?: AbortSignal | undefined,
): Promise<void> {
  for (const [index, group] of toGroups([...parts].sort((a, b) => a.offset - b.offset)).entries()) {
    if (index > 0) await setImmediate();
    signal?.throwIfAborted();
    const [first] = group;
    const last = group.at(-1);
    if (first === undefined || last === undefined) continue;
    if (group.length === 1) {
      await copyTo((start, size) => addressOf(first.offset + start, size), first.bytes, signal);
      continue;
    }
    const byteSize = last.offset + last.bytes.byteLength - first.offset;
    const address = addressOf(first.offset, byteSize);
    if (byteSize >= populateBytes) populate(address, byteSize);
    const view = new Uint8Array(viewAt(address, byteSize));
    for (const { offset, bytes } of group) view.set(bytes, offset - first.offset);
  }
}

/** What is in a window together; what is larger than one is alone. @param parts by their place */
function toGroups(parts: readonly PlacedBytes[]): PlacedBytes[][] {
  const groups: PlacedBytes[][] = [];
  let group: PlacedBytes[] = [];
  for (const part of parts) {
    if (part.bytes.byteLength === 0) continue;
    const begin = group[0]?.offset;
    if (begin === undefined || part.offset + part.bytes.byteLength - begin > windowBytes) {
      group = [];
      groups.push(group);
    }
    group.push(part);
  }
  return groups;
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
