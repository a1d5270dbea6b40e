/**
 * Where each tensor of a region lies, as a safetensors header in both directions: laid out from what is asked for, and
 * parsed from files that anybody may have written. It reads and writes no file.
 */

import assert from "node:assert/strict";
import { TensordError } from "../error.ts";
import { limits } from "../limits.ts";
import { quote, toJsonText } from "../naming.ts";
import { aliasesKey, elementBytes, findTarget, toAliasText } from "./aliases.ts";
import { type Dtype, dtypeBits, isDtype } from "./dtype.ts";
import { readHeaderText } from "./header-text.ts";
import { checkTensorName } from "./tensor-name.ts";

/** What is asked for: `shape` in elements, outermost dimension first, C order. `[]` is one element. */
export interface TensorSpec {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** The tensor whose bytes these are: of the same region, and no alias itself. */
  readonly aliasOf?: string | undefined;
  /** Of an alias: where it begins in that tensor, 0 unless it says so. */
  readonly aliasByteOffset?: number | undefined;
  readonly logical?: Logical | undefined;
}

/** What a tensor's bytes stand for where no dtype says it, such as blocks of quantised elements; nobody here looks into them. */
export interface Logical {
  /** By the name that the file's format has for it: `Q4_K` of ggml. */
  readonly type: string;
  /** In elements of that type, outermost dimension first. */
  readonly shape: readonly number[];
}

/** A tensor with its place. */
export interface Tensor extends Omit<TensorSpec, "aliasByteOffset"> {
  /** From the start of the *file*. */
  readonly byteOffset: number;
  readonly byteSize: number;
  /** Whether `byteOffset` is a multiple of the element's size. True of elements smaller than a byte. */
  readonly aligned: boolean;
}

export interface RegionLayout {
  /** The first `dataOffset` bytes of the file: 8 bytes little-endian length, and the JSON padded with spaces. Or none. */
  readonly header: Uint8Array;
  /** Where data starts, a multiple of `limits.dataAlignmentBytes`. */
  readonly dataOffset: number;
  /** Of the whole file. */
  readonly byteSize: number;
  /** In the order asked for. */
  readonly tensors: readonly Tensor[];
}

const lengthBytes = 8;

/** A tensor on its way to a place. */
interface Slot extends TensorSpec {
  readonly byteSize: number;
  /** Of its elements, or of the largest ones among its aliases'. */
  bits: number;
  /** From the start of the data. */
  begin: number;
}

/**
 * Lays tensors out by descending element size, so that each is aligned without a gap, and in the order asked for within
 * one size. Zero-element tensors and scalars are legal. An alias lies in its tensor and takes no bytes; it stands in
 * `__metadata__`, since the format has one tensor for each byte.
 * @param metadata becomes `__metadata__`; an empty one is left out. false: no header at all, and data from the first byte on.
 * @throws TensordError `validation-failed` when a name, shape, alias or sum breaks a rule of the format or a limit.
 */
export function layOutRegion(
  tensors: readonly TensorSpec[],
  metadata: Readonly<Record<string, string>> | false,
): RegionLayout {
  checkTensorCount(tensors.length);
  const slots = new Map<string, Slot>();
  let nameBytes = 0;
  for (const spec of tensors) {
    checkTensorName(spec.name);
    // An alias stands in the header with its tensor's name.
    nameBytes += toJsonBytes(spec.name) + (spec.aliasOf === undefined ? 0 : toJsonBytes(spec.aliasOf));
    if (nameBytes > limits.tensorNamesBytes) throw tooManyNames();
    if (slots.has(spec.name)) {
      throw refused(`Cannot lay out region: the tensor name ${quote(spec.name)} occurs twice, want each name once`);
    }
    slots.set(spec.name, { ...spec, byteSize: tensorByteSize(spec), bits: dtypeBits[spec.dtype], begin: 0 });
  }
  const inDataOrder: Slot[] = [];
  const aliases: { readonly slot: Slot; readonly target: Slot }[] = [];
  for (const slot of slots.values()) {
    const target = findTarget(slot, slots);
    if (target === undefined) inDataOrder.push(slot);
    else aliases.push({ slot, target });
  }
  // Elements of an alias are aligned where those of its tensor would be, were they as large.
  for (const { slot, target } of aliases) target.bits = Math.max(target.bits, slot.bits);
  inDataOrder.sort((a, b) => b.bits - a.bits);
  let dataByteSize = 0;
  for (const slot of inDataOrder) {
    slot.begin = dataByteSize;
    dataByteSize += slot.byteSize;
    checkRegionByteSize(dataByteSize);
  }
  for (const { slot, target } of aliases) slot.begin = target.begin + (slot.aliasByteOffset ?? 0);
  const ties = aliases.length === 0 ? {} : { [aliasesKey]: toAliasText(aliases.map(({ slot }) => slot)) };
  const header = metadata === false ? new Uint8Array(0) : writeHeader(inDataOrder, { ...metadata, ...ties });
  const dataOffset = header.length;
  checkRegionByteSize(dataOffset + dataByteSize);
  const placed = Array.from(slots.values(), (slot) => toTensor(slot, dataOffset + slot.begin, slot.byteSize));
  assert(placed.every((tensor) => tensor.aligned));
  return { header, dataOffset, byteSize: dataOffset + dataByteSize, tensors: placed };
}

/**
 * Bytes of a tensor's data.
 * @throws TensordError `validation-failed` on a bad dimension, an overflow, or bits that are no multiple of 8. The product
 * leaves dimensions of 0 out: NumPy and safetensors' own reader overflow on `[2 ** 40, 2 ** 40, 0]`, empty as it is.
 */
export function tensorByteSize(spec: TensorSpec): number {
  const { name, dtype, shape } = spec;
  if (shape.length > limits.tensorDimensions) {
    const want = `want at most ${limits.tensorDimensions}`;
    throw refused(`Cannot size tensor ${quote(name)}: it has ${shape.length} dimensions, ${want}`);
  }
  let bits: number = dtypeBits[dtype];
  let isEmpty = false;
  for (const dimension of shape) {
    if (!Number.isSafeInteger(dimension) || dimension < 0) {
      const want = `want whole numbers from 0 to ${Number.MAX_SAFE_INTEGER}`;
      throw refused(`Cannot size tensor ${quote(name)}: a dimension is ${dimension}, ${want}`);
    }
    if (dimension === 0) isEmpty = true;
    else bits *= dimension;
  }
  // What was rounded on its way is not safe at its end.
  const exact = Number.isSafeInteger(bits) ? bits : multiply(spec);
  if (typeof exact === "bigint" && exact > BigInt(limits.regionBytes) * 8n) {
    const state = `${dtype} of shape [${shape.join(", ")}] overflows`;
    throw refused(`Cannot size tensor ${quote(name)}: ${state}, want at most ${limits.regionBytes} bytes`);
  }
  if (isEmpty) return 0;
  const isWhole = typeof exact === "bigint" ? exact % 8n === 0n : exact % 8 === 0;
  if (!isWhole) {
    const state = `${dtype} of shape [${shape.join(", ")}] has ${exact} bits`;
    const hint = `Ask for a number of elements that is a multiple of ${dtypeBits[dtype] === 4 ? 2 : 4}.`;
    throw refused(`Cannot size tensor ${quote(name)}: ${state}, want a multiple of 8`, hint);
  }
  return typeof exact === "bigint" ? Number(exact / 8n) : exact / 8;
}

/** The bits of a tensor whose dimensions are valid, dimensions of 0 left out, however many. */
function multiply({ shape, dtype }: TensorSpec): bigint {
  const factors = shape.filter((dimension) => dimension > 0);
  return factors.reduce((product, dimension) => product * BigInt(dimension), BigInt(dtypeBits[dtype]));
}

/**
 * How many bytes at the start of a file `parseHeader` needs: the length's own 8, and the JSON.
 * @param prefix8 at least the first 8 bytes.
 * @throws TensordError `validation-failed` when the length breaks the format's limit or passes the end of the file.
 */
export function headerByteSize(prefix8: Uint8Array, fileSize: number): number {
  assert(Number.isSafeInteger(fileSize) && fileSize >= 0);
  if (prefix8.length < lengthBytes || fileSize < lengthBytes) {
    const bytes = Math.min(prefix8.length, fileSize);
    throw refused(`Cannot read safetensors header: there are ${bytes} bytes, want at least 8`);
  }
  const view = new DataView(prefix8.buffer, prefix8.byteOffset, prefix8.byteLength);
  const length = view.getBigUint64(0, true);
  const maximum = Math.min(limits.headerBytes, fileSize - lengthBytes);
  if (length < 2n || length > BigInt(maximum)) {
    const want = `want 2 to ${maximum} in a file of ${fileSize} bytes`;
    throw refused(`Cannot read safetensors header: its length is ${length}, ${want}`);
  }
  return lengthBytes + Number(length);
}

/**
 * Reads a header that anybody may have written: names unique, data contiguous and covering the file to its last byte.
 * @param prefix at least the first `headerByteSize` bytes of the file; more is ignored.
 * @returns the tensors in the order of their data; `metadata` is empty if there is none.
 * @throws TensordError `validation-failed` with the broken rule.
 */
export function parseHeader(
  prefix: Uint8Array,
  fileSize: number,
): { tensors: readonly Tensor[]; metadata: Readonly<Record<string, string>>; dataOffset: number } {
  const dataOffset = headerByteSize(prefix, fileSize);
  if (prefix.length < dataOffset) {
    throw refused(`Cannot read safetensors header: ${prefix.length} bytes of it are there, want ${dataOffset}`);
  }
  const { metadata, entries } = readHeaderText(prefix.subarray(lengthBytes, dataOffset));
  checkTensorCount(entries.length);
  const inDataOrder = entries.toSorted(
    (a, b) => a.dataOffsets[0] - b.dataOffsets[0] || a.dataOffsets[1] - b.dataOffsets[1],
  );
  let end = 0;
  const tensors = inDataOrder.map(({ name, dtype, shape, dataOffsets }) => {
    checkTensorName(name);
    const tensor = `tensor ${quote(name)}`;
    if (!isDtype(dtype)) {
      throw refused(`Cannot read safetensors header: ${tensor} has dtype ${quote(dtype)}, want one of safetensors'`);
    }
    const byteSize = tensorByteSize({ name, dtype, shape });
    if (dataOffsets[0] !== end) {
      throw refused(`Cannot read safetensors header: ${tensor} begins at ${dataOffsets[0]}, want ${end}`);
    }
    if (dataOffsets[1] - dataOffsets[0] !== byteSize) {
      const state = `${tensor} occupies ${dataOffsets[1] - dataOffsets[0]} bytes`;
      throw refused(`Cannot read safetensors header: ${state}, want ${byteSize} by its shape and dtype`);
    }
    end = dataOffsets[1];
    return toTensor({ name, dtype, shape }, dataOffset + dataOffsets[0], byteSize);
  });
  if (dataOffset + end !== fileSize) {
    throw refused(`Cannot read safetensors header: the data ends at byte ${dataOffset + end}, want ${fileSize}`);
  }
  return { tensors, metadata, dataOffset };
}

/** What keeps two sets of tensors apart; at most `limits.tensorDifferences` entries in each list. */
export interface TensorDifference {
  /** Names that were asked for and do not exist. */
  readonly missing: readonly string[];
  /** Names that exist and were not asked for. */
  readonly unexpected: readonly string[];
  readonly different: readonly { readonly name: string; readonly asked: TensorType; readonly existing: TensorType }[];
}

export type TensorType = Pick<TensorSpec, "dtype" | "shape">;

/**
 * Compares two sets of (name, dtype, shape); the order does not count. A name asked for twice is missing once.
 * @returns undefined when they agree.
 */
export function tensorDifference(
  asked: readonly TensorSpec[],
  existing: readonly (TensorType & Pick<TensorSpec, "name">)[],
): TensorDifference | undefined {
  const rest = new Map(existing.map((tensor) => [tensor.name, tensor]));
  const missing: string[] = [];
  const different: TensorDifference["different"][number][] = [];
  for (const tensor of asked) {
    const other = rest.get(tensor.name);
    rest.delete(tensor.name);
    if (other === undefined) missing.push(tensor.name);
    else if (!isSameType(tensor, other)) {
      different.push({ name: tensor.name, asked: toTensorType(tensor), existing: toTensorType(other) });
    }
  }
  if (missing.length + rest.size + different.length === 0) return undefined;
  const count = limits.tensorDifferences;
  const unexpected = [...rest.keys()].slice(0, count);
  return { missing: missing.slice(0, count), unexpected, different: different.slice(0, count) };
}

function toTensorType({ dtype, shape }: TensorSpec): TensorType {
  return { dtype, shape };
}

function isSameType(a: TensorType, b: TensorType): boolean {
  const isSameShape = a.shape.length === b.shape.length && a.shape.every((dimension, i) => dimension === b.shape[i]);
  return isSameShape && a.dtype === b.dtype;
}

function writeHeader(inDataOrder: readonly Slot[], metadata: Readonly<Record<string, string>>): Uint8Array {
  // Joined by hand: an object would put names like "10" first and lose "__proto__".
  const words = toMetadataText(metadata);
  let members = words === "" ? "" : `"__metadata__":{${words}}`;
  for (const { name, dtype, shape, begin, byteSize } of inDataOrder) {
    const place = `"shape":[${shape.join(",")}],"data_offsets":[${begin},${begin + byteSize}]`;
    // Its length, since a comparison would put the text together each time.
    members += `${members.length === 0 ? "" : ","}${toJsonText(name)}:{"dtype":"${dtype}",${place}}`;
  }
  const json = `{${members}}`;
  const jsonBytes = Buffer.byteLength(json);
  const alignment = limits.dataAlignmentBytes;
  const dataOffset = Math.ceil((lengthBytes + jsonBytes) / alignment) * alignment;
  if (dataOffset - lengthBytes > limits.headerBytes) {
    throw refused(`Cannot lay out region: its header has ${jsonBytes} bytes, want at most ${limits.headerBytes}`);
  }
  // Of no other's memory, and written to its last byte.
  const header = Buffer.allocUnsafeSlow(dataOffset);
  header.writeUInt32LE(dataOffset - lengthBytes, 0);
  header.writeUInt32LE(0, lengthBytes / 2);
  header.write(json, lengthBytes);
  return header.fill(0x20, lengthBytes + jsonBytes);
}

function toMetadataText(metadata: Readonly<Record<string, string>>): string {
  let text = "";
  let isWellFormed = true;
  const keys = Object.keys(metadata);
  for (const key of keys) {
    const value = metadata[key] ?? "";
    isWellFormed &&= key.isWellFormed() && value.isWellFormed();
    text += `${text.length === 0 ? "" : ","}${toJsonText(key)}:${toJsonText(value)}`;
  }
  if (isWellFormed && keys.length <= limits.headerMetadataEntries) return text;
  const want = `want at most ${limits.headerMetadataEntries} of Unicode text`;
  throw refused(`Cannot lay out region: one of its ${keys.length} metadata entries cannot be written, ${want}`);
}

function toJsonBytes(name: string): number {
  return Buffer.byteLength(toJsonText(name));
}

function tooManyNames(): TensordError {
  const want = `want at most ${limits.tensorNamesBytes}`;
  return refused(
    `Cannot lay out region: the names of its tensors have together more bytes than it may have, as JSON, ${want}`,
    "Shorten the names, or put the tensors into several regions.",
  );
}

function toTensor(spec: TensorSpec, byteOffset: number, byteSize: number): Tensor {
  const { name, dtype, shape, aliasOf, logical } = spec;
  const tensor = { name, dtype, shape, byteOffset, byteSize, aligned: byteOffset % elementBytes(dtype) === 0 };
  if (aliasOf === undefined && logical === undefined) return tensor;
  return { ...tensor, ...(aliasOf !== undefined && { aliasOf }), ...(logical !== undefined && { logical }) };
}

function checkTensorCount(count: number): void {
  if (count >= 1 && count <= limits.regionTensors) return;
  throw refused(`Cannot make region: it has ${count} tensors, want 1 to ${limits.regionTensors}`);
}

function checkRegionByteSize(byteSize: number): void {
  if (byteSize <= limits.regionBytes) return;
  throw refused(
    `Cannot lay out region: its tensors are ${byteSize} bytes and more, want at most ${limits.regionBytes}`,
  );
}

function refused(detail: string, hint = "Correct what the sentence names and ask again."): TensordError {
  return new TensordError("validation-failed", detail, { hint });
}
