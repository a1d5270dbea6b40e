/** A `.npy` file: the header of one array. Pure. Source: `numpy.lib.format`. */

import { elementBytes } from "../../memory/layout/aliases.ts";
import type { Dtype } from "../../memory/layout/dtype.ts";
import { tensorByteSize } from "../../memory/layout/layout.ts";
import { checkTensorName } from "../../memory/layout/tensor-name.ts";
import { quote } from "../../memory/naming.ts";
import { fileLimits } from "../limits.ts";
import { toLatin1 } from "./bytes.ts";
import { pickleHint } from "./foreign.ts";
import type { Parsed, Wanted } from "./format.ts";
import { readLiteral } from "./npy-literal.ts";
import { invalid, unsupported } from "./refusal.ts";

const magic = "\x93NUMPY";
const versionBytes = 2;

/** What NumPy calls the types that have a dtype, without the byte order. */
const dtypes: Readonly<Record<string, Dtype>> = {
  b1: "BOOL",
  i1: "I8",
  u1: "U8",
  i2: "I16",
  u2: "U16",
  f2: "F16",
  i4: "I32",
  u4: "U32",
  f4: "F32",
  i8: "I64",
  u8: "U64",
  f8: "F64",
  c8: "C64",
};

/**
 * @param name of the array's tensor: the file has none.
 * @returns a parser of such a file. Its refusals say `array`, and the rest names the file.
 */
export function parseNpy(prefix: Uint8Array, byteSize: number | undefined, name: string): Parsed | Wanted {
  const known = byteSize ?? Number.MAX_SAFE_INTEGER;
  const begin = toLatin1(prefix, magic.length);
  if (!magic.startsWith(begin)) throw invalid(`it begins with ${quote(begin)}, want ${quote(magic)}`);
  const lengthAt = magic.length + versionBytes;
  const isShort = prefix[magic.length] === 1;
  const headerAt = lengthAt + (isShort ? 2 : 4);
  const before = want(headerAt, prefix, known);
  if (before !== undefined) return before;
  const version = prefix[magic.length] as number;
  if (version < 1 || version > 3)
    throw unsupported(`its version is ${version}, want 1 to 3`, "Save it with numpy.save.");
  const view = new DataView(prefix.buffer, prefix.byteOffset);
  const length = isShort ? view.getUint16(lengthAt, true) : view.getUint32(lengthAt, true);
  if (length > fileLimits.npyHeaderBytes) {
    throw invalid(`its header has ${length} bytes, want at most ${fileLimits.npyHeaderBytes}`);
  }
  const dataOffset = headerAt + length;
  const whole = want(dataOffset, prefix, known);
  if (whole !== undefined) return whole;
  const { dtype, shape } = readHeader(prefix.subarray(headerAt, dataOffset), version === 3);
  checkTensorName(name);
  const size = tensorByteSize({ name, dtype, shape });
  if (byteSize !== undefined && dataOffset + size !== byteSize) {
    const state = `it has ${byteSize} bytes, want ${dataOffset + size} by its header`;
    throw invalid(state, byteSize > dataOffset + size ? "Save several arrays with numpy.savez." : undefined);
  }
  const aligned = dataOffset % elementBytes(dtype) === 0;
  const tensor = { name, dtype, shape, byteOffset: dataOffset, byteSize: size, aligned };
  return { tensors: [tensor], metadata: {}, dataOffset, byteSize: dataOffset + size };
}

function want(bytes: number, prefix: Uint8Array, byteSize: number): Wanted | undefined {
  if (prefix.length >= bytes) return undefined;
  if (byteSize >= bytes) return { wantedBytes: bytes };
  throw invalid(`its header is broken off: it has ${byteSize} bytes, want at least ${bytes}`);
}

function readHeader(bytes: Uint8Array, isUtf8: boolean): { dtype: Dtype; shape: readonly number[] } {
  const text = new TextDecoder(isUtf8 ? "utf-8" : "latin1").decode(bytes);
  const { descr, fortran_order: fortranOrder, shape, ...others } = readLiteral(text);
  const [other] = Object.keys(others);
  if (other !== undefined) throw invalid(`its header has the key ${quote(other)}, want descr, fortran_order and shape`);
  if (descr === undefined || typeof fortranOrder !== "boolean" || !isShape(shape)) {
    throw invalid("its header is incomplete, want descr, fortran_order (True or False) and shape (whole numbers)");
  }
  const dtype = toDtype(descr);
  // One dimension alone, or none, is in both orders.
  if (fortranOrder && shape.filter((dimension) => dimension !== 1).length > 1) {
    throw unsupported(
      `its array of shape [${shape.join(", ")}] is in Fortran's order, want C's`,
      "Save numpy.ascontiguousarray(array).",
    );
  }
  return { dtype, shape };
}

function isShape(value: unknown): value is readonly number[] {
  return Array.isArray(value) && value.every((item) => typeof item === "number");
}

function toDtype(descr: unknown): Dtype {
  const text = typeof descr === "string" ? descr : JSON.stringify(descr);
  if (/^[|<>=]?O\d*$/.test(text) || (typeof descr !== "string" && /"[|<>=]?O\d*"/.test(text))) {
    throw unsupported("its elements are Python objects, which are a pickle, want numbers", pickleHint);
  }
  const [, order, type = ""] = /^([|<>=]?)(\w+)$/.exec(text) ?? [];
  const dtype = Object.hasOwn(dtypes, type) ? dtypes[type] : undefined;
  if (dtype === undefined) {
    const hint = "Save an array of numbers, or of another type its bytes: array.view(numpy.uint8).";
    throw unsupported(`its elements are of type ${quote(text)}, want one of ${Object.keys(dtypes).join(", ")}`, hint);
  }
  if (order === ">" && elementBytes(dtype) > 1) {
    throw unsupported(`its elements are big-endian (${text}), want little-endian`, `Save array.astype("<${type}").`);
  }
  return dtype;
}
