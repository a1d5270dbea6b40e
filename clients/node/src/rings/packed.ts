/**
 * The packed reference (docs/protocol.md, "The bell"): 128 bytes that name a tensor in a slot to who has its ring open; and what it shares
 * with the record of an answer. Pure: who reads one copies it first, since what others can write may change while it is looked at.
 */

import { quote } from "../check/value.ts";
import { byteSizeOf, type Dtype } from "../dtype.ts";
import { TensordError } from "../errors.ts";

export const packedBytes = 128;
const maxPackedDimensions = 8;
const magic = 0x31525354; // "TSR1"

/** What an entry is for. */
export const tensorKind = 0;
export const requestKind = 3;

/** By their codes, from 1 on, which are never renumbered. 0 is none, so that fresh memory is no reference. */
const dtypes = (
  "BOOL F4 F6_E2M3 F6_E3M2 U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ I16 U16 F16 BF16 I32 U32 F32 C64 F64 I64 " +
  "U64"
).split(" ") as readonly Dtype[];

const alphabet = "abcdefghijklmnopqrstuvwxyz234567";

/** With bit 7 set where it makes the number of set bits even: no flip of one bit is another value. */
function withParity(value: number): number {
  let isOdd = 0;
  for (let bits = value; bits !== 0; bits >>= 1) isOdd ^= bits & 1;
  return value | (isOdd << 7);
}

const byteOfDtype = new Map(dtypes.map((dtype, index) => [dtype, withParity(index + 1)]));
const dtypeOfByte = new Map([...byteOfDtype].map(([dtype, byte]) => [byte, dtype]));
const byteOfDimensions = Array.from({ length: maxPackedDimensions + 1 }, (_, count) => withParity(count));

/** Where the places of the fields are. */
const at = { dtype: 4, dimensions: 5, kind: 6, zero: 7, generation: 8, byteOffset: 16, byteSize: 24, dev: 32, ino: 40 };
const regionAt = 48;
export const shapeAt = 64;

/** dtype and shape, and the bytes that they make. */
export interface Shaped {
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly byteSize: number;
}

/** Which ring: its file, and the hex of its region's mark. */
export interface Mark {
  readonly dev: bigint;
  readonly ino: bigint;
  readonly region: string;
}

/** What a packed reference says. */
export interface Packed extends Shaped, Mark {
  readonly kind: number;
  readonly generation: number;
  readonly byteOffset: number;
}

/** The first 128 of the 130 bits of a region's id, in hex. */
export function toMark(region: string): string {
  let bits = 0n;
  for (const character of region.replace(/^reg_/, "")) bits = (bits << 5n) | BigInt(alphabet.indexOf(character));
  return (bits >> 2n).toString(16).padStart(32, "0");
}

/** @throws TensordError `validation-failed` for more dimensions than there is room for */
export function pack({ dtype, shape, byteSize, kind, generation, byteOffset, dev, ino, region }: Packed): Buffer {
  const raw = Buffer.alloc(packedBytes);
  raw.writeUInt32LE(magic, 0);
  writeShape(raw, at.dtype, { dtype, shape });
  raw[at.kind] = kind;
  writePlace(raw, generation, byteOffset);
  writeSize(raw, at.byteSize, byteSize);
  raw.writeBigUInt64LE(dev, at.dev);
  raw.writeBigUInt64LE(ino, at.ino);
  raw.write(region, regionAt, "hex");
  return raw;
}

/** Writes what differs between two entries of one dtype and shape. */
export function writePlace(raw: Buffer, generation: number, byteOffset: number): void {
  writeSize(raw, at.generation, generation);
  writeSize(raw, at.byteOffset, byteOffset);
}

/** @throws TensordError `validation-failed` unless its fields agree with each other */
export function unpack(raw: Buffer): Packed {
  if (raw.length !== packedBytes) refuse("it", `${raw.length} bytes`, `${packedBytes} bytes`);
  if (raw.readUInt32LE(0) !== magic) refuse("its beginning", raw.toString("latin1", 0, 4), "TSR1");
  const kind = raw.readUInt8(at.kind);
  if ((kind !== tensorKind && kind !== requestKind) || raw[at.zero] !== 0) {
    refuse("its kind", [kind, raw[at.zero]], `${tensorKind} or ${requestKind}, and 0`);
  }
  return {
    kind,
    ...readShape(raw, at.dtype, readSize(raw, at.byteSize)),
    ...readPlace(raw),
    dev: raw.readBigUInt64LE(at.dev),
    ino: raw.readBigUInt64LE(at.ino),
    region: raw.toString("hex", regionAt, shapeAt),
  };
}

/** @throws TensordError `validation-failed` */
export function readPlace(raw: Buffer): { readonly generation: number; readonly byteOffset: number } {
  return { generation: readSize(raw, at.generation), byteOffset: readSize(raw, at.byteOffset) };
}

/** All of an entry that is the same for each of one dtype and shape. */
export function keyOf(raw: Buffer): string {
  return raw.toString("latin1", 0, at.generation) + raw.toString("latin1", at.byteSize);
}

/**
 * Writes dtype and dimensions side by side at `dtypeAt`, and the shape where it is in references and records.
 * @throws TensordError `validation-failed`
 */
export function writeShape(raw: Buffer, dtypeAt: number, { dtype, shape }: Pick<Shaped, "dtype" | "shape">): void {
  const dimensions = byteOfDimensions[shape.length];
  if (dimensions === undefined) {
    throw new TensordError(
      "validation-failed",
      `Cannot send a tensor of ${shape.length} dimensions, want at most ${maxPackedDimensions}`,
      { hint: "reshape it, or put() it and send the reference, which has as many as there are" },
    );
  }
  raw[dtypeAt] = byteOfDtype.get(dtype) ?? 0;
  raw[dtypeAt + 1] = dimensions;
  for (const [index, size] of shape.entries()) writeSize(raw, shapeAt + 8 * index, size);
}

/** @throws TensordError `validation-failed` unless they make `byteSize` */
export function readShape(raw: Buffer, dtypeAt: number, byteSize: number): Shaped {
  const dtype = dtypeOfByte.get(raw.readUInt8(dtypeAt));
  if (dtype === undefined) refuse("dtype", raw[dtypeAt], "a code with its parity");
  const dimensions = byteOfDimensions.indexOf(raw.readUInt8(dtypeAt + 1));
  if (dimensions < 0) refuse("dimensions", raw[dtypeAt + 1], `0 to ${maxPackedDimensions} with parity`);
  const shape: number[] = [];
  for (let index = 0; index < maxPackedDimensions; index++) {
    const size = readSize(raw, shapeAt + 8 * index);
    if (index < dimensions) shape.push(size);
    else if (size !== 0) refuse("shape", size, `${dimensions} sizes, and zeros`);
  }
  const wanted = byteSizeOf(dtype, shape);
  if (wanted !== byteSize) refuse("byte_size", byteSize, `${wanted}, which its shape and dtype make`);
  return { dtype, shape, byteSize };
}

/** A number below 2^53. @throws TensordError `validation-failed` */
export function readSize(raw: Buffer, offset: number): number {
  const value = raw.readUInt32LE(offset) + raw.readUInt32LE(offset + 4) * 2 ** 32;
  if (value > Number.MAX_SAFE_INTEGER) refuse("a number", value, `at most ${Number.MAX_SAFE_INTEGER}`);
  return value;
}

export function writeSize(raw: Buffer, offset: number, value: number): void {
  raw.writeUInt32LE(value % 2 ** 32, offset);
  raw.writeUInt32LE(Math.floor(value / 2 ** 32), offset + 4);
}

function refuse(name: string, value: unknown, want: string): never {
  throw new TensordError(
    "validation-failed",
    `Cannot read a packed reference: ${name} is ${quote(value)}, want ${want}`,
  );
}
