/**
 * A GGUF file, versions 2 and 3: names, shapes and places of its tensors, and what it says of itself. Blocks of quantised
 * elements are opaque bytes that carry their ggml type. Pure. Source: ggml's gguf.cpp and its words on the format.
 */

import { elementBytes } from "../../memory/layout/aliases.ts";
import { tensorByteSize } from "../../memory/layout/layout.ts";
import { checkTensorName } from "../../memory/layout/tensor-name.ts";
import { limits } from "../../memory/limits.ts";
import { quote } from "../../memory/naming.ts";
import type { FileTensor, Parsed, Wanted } from "./format.ts";
import { ggmlTypes } from "./ggml-type.ts";
import { GgufCursor, PrefixEnds } from "./gguf-cursor.ts";
import { readPairs } from "./gguf-metadata.ts";
import { invalid, unsupported } from "./refusal.ts";

/** Most dimensions of a tensor (`GGML_MAX_DIMS`). */
const maximumDimensions = 4;
/** The least bytes of a tensor's description: its name's length, its dimensions' count, its type and its place. */
const leastTensorBytes = 24;
const defaultAlignment = 32;

/** @throws TensordError `invalid-model-file`, `unsupported-format`, or `validation-failed` of a name or shape. */
export function parseGguf(prefix: Uint8Array, byteSize: number): Parsed | Wanted {
  try {
    return parse(new GgufCursor(prefix, byteSize), byteSize);
  } catch (error) {
    if (!(error instanceof PrefixEnds)) throw error;
    if (error.wantedBytes > limits.headerBytes) {
      throw invalid(`its header has ${error.wantedBytes} bytes and more, want at most ${limits.headerBytes}`);
    }
    // Twice as many each time, so that a long header is not read in thousands of steps.
    const wantedBytes = Math.max(error.wantedBytes, Math.min(2 * prefix.length, byteSize, limits.headerBytes));
    return { wantedBytes };
  }
}

function parse(cursor: GgufCursor, byteSize: number): Parsed {
  checkVersion(cursor);
  const tensorCount = cursor.count("tensors", leastTensorBytes, limits.regionTensors);
  if (tensorCount === 0)
    throw invalid("it has 0 tensors, want at least 1", "Load the file that has the model's weights.");
  const { metadata, alignment = defaultAlignment } = readPairs(cursor);
  const described: Described[] = [];
  const names = new Set<string>();
  for (let index = 0; index < tensorCount; index++) {
    const tensor = readTensor(cursor);
    if (names.has(tensor.name))
      throw invalid(`the tensor name ${quote(tensor.name)} occurs twice, want each name once`);
    names.add(tensor.name);
    described.push(tensor);
  }
  const dataOffset = alignUp(cursor.at, alignment);
  const inDataOrder = described.toSorted((a, b) => a.begin - b.begin || a.byteSize - b.byteSize);
  let end = 0;
  for (const { name, begin, byteSize: size } of inDataOrder) {
    const want = alignUp(end, alignment);
    if (begin !== want) throw invalid(`tensor ${quote(name)} begins at ${begin} of the data, want ${want}`);
    end = begin + size;
  }
  const [least, most] = [dataOffset + end, dataOffset + alignUp(end, alignment)];
  if (byteSize < least || byteSize > most) {
    throw invalid(`it has ${byteSize} bytes, want ${least} to ${most} by its header`);
  }
  return { tensors: inDataOrder.map((tensor) => toFileTensor(tensor, dataOffset)), metadata, dataOffset, byteSize };
}

function checkVersion(cursor: GgufCursor): void {
  const from = cursor.skip(4);
  const magic = cursor.readLatin1(from, 4);
  if (magic !== "GGUF") throw invalid(`it begins with ${quote(magic)}, want "GGUF"`);
  const version = cursor.u32();
  if (version === 2 || version === 3) return;
  const hint = "Convert the model anew with llama.cpp's convert_hf_to_gguf.py, for this kind of machine.";
  if ((version & 0xffff) === 0) throw unsupported("its numbers are big-endian, want little-endian", hint);
  throw unsupported(`its version is ${version}, want 2 or 3`, hint);
}

interface Described extends Omit<FileTensor, "byteOffset" | "aligned"> {
  /** From the start of the data. */
  readonly begin: number;
}

function readTensor(cursor: GgufCursor): Described {
  const name = cursor.text("a tensor's name");
  checkTensorName(name);
  const tensor = `tensor ${quote(name)}`;
  const dimensions = cursor.u32();
  if (dimensions > maximumDimensions) {
    throw invalid(`${tensor} has ${dimensions} dimensions, want at most ${maximumDimensions}`);
  }
  const extents: number[] = [];
  for (let index = 0; index < dimensions; index++) extents.push(toExact(cursor.u64(), `a dimension of ${tensor}`));
  const number = cursor.u32();
  const type = ggmlTypes.get(number);
  const begin = toExact(cursor.u64(), `the place of ${tensor}`);
  if (type === undefined) {
    throw unsupported(
      `${tensor} is of ggml's type ${number}, want one of ${[...ggmlTypes.keys()].join(", ")}`,
      "Quantise the model to another type, or load the file with format raw.",
    );
  }
  // The file has the innermost dimension first.
  const shape = extents.toReversed();
  if (type.dtype !== undefined) {
    return { name, dtype: type.dtype, shape, begin, byteSize: tensorByteSize({ name, dtype: type.dtype, shape }) };
  }
  const innermost = extents[0] ?? 1;
  if (innermost % type.blockElements !== 0) {
    throw invalid(
      `rows of ${tensor} have ${innermost} elements of ${type.name}, want a multiple of ${type.blockElements}`,
    );
  }
  // A scalar of a block type was refused: one element is no whole block.
  const bytes = [...shape.slice(0, -1), (innermost / type.blockElements) * type.blockBytes];
  const byteSize = tensorByteSize({ name, dtype: "U8", shape: bytes });
  return { name, dtype: "U8", shape: bytes, begin, byteSize, logical: { type: type.name, shape } };
}

function toFileTensor({ begin, ...tensor }: Described, dataOffset: number): FileTensor {
  const byteOffset = dataOffset + begin;
  return { ...tensor, byteOffset, aligned: byteOffset % elementBytes(tensor.dtype) === 0 };
}

function toExact(value: bigint, what: string): number {
  if (value <= BigInt(limits.regionBytes)) return Number(value);
  throw invalid(`${what} is ${value}, want at most ${limits.regionBytes}`);
}

function alignUp(value: number, alignment: number): number {
  return Math.ceil(value / alignment) * alignment;
}
