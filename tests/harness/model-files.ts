/** Model files as tests make and read them: bytes in memory with a reader over them, and failures taken for a look. */

import { crc32, deflateRawSync } from "node:zlib";
import type { RangeReader } from "../../src/loaders/formats/format.ts";
import { TensordError } from "../../src/memory/error.ts";

export interface CountedReader extends RangeReader {
  /** How many bytes were asked for, all reads together. */
  readonly readBytes: number;
}

/** A reader over bytes. @param byteSize what the file had when it was opened, if it has shrunk since. */
export function readerOf(bytes: Uint8Array, byteSize = bytes.length): CountedReader {
  let readBytes = 0;
  return {
    byteSize,
    get readBytes() {
      return readBytes;
    },
    read(byteOffset, size) {
      readBytes += size;
      return Promise.resolve(bytes.slice(byteOffset, byteOffset + size));
    },
  };
}

/** What `act` is refused with. */
export async function refusalOf(act: () => Promise<unknown>): Promise<TensordError> {
  try {
    await act();
  } catch (error) {
    if (error instanceof TensordError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

/** All that a stream brings. */
export async function collect(pieces: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const all: Uint8Array[] = [];
  for await (const piece of pieces) all.push(piece);
  return Buffer.concat(all);
}

/** A safetensors file of a header and data. */
export function safetensorsFile(header: string, data: Uint8Array | number, length?: bigint): Buffer {
  const text = Buffer.from(header);
  return Buffer.concat([u64(length ?? text.length), text, toData(data)]);
}

/** A `.npy` file, version 1 unless told otherwise. */
export function npyFile(header: string, data: Uint8Array | number, version = 1, length = header.length): Buffer {
  const size = Buffer.alloc(version === 1 ? 2 : 4);
  size.writeUIntLE(length, 0, size.length);
  return Buffer.concat([
    Buffer.from([0x93, ...Buffer.from("NUMPY"), version, 0]),
    size,
    Buffer.from(header),
    toData(data),
  ]);
}

/** The header that `numpy.save` writes. */
export function npyHeader(descr: string, shape: string, isFortran = false): string {
  const dict = `{'descr': ${descr}, 'fortran_order': ${isFortran ? "True" : "False"}, 'shape': ${shape}, }`;
  return `${dict}${" ".repeat(63 - ((10 + dict.length) % 64))}\n`;
}

export type GgufValue = readonly [type: number, value: Uint8Array];

export interface GgufTensor {
  readonly name: string;
  /** As they stand in the file, the innermost first. */
  readonly extents: readonly (number | bigint)[];
  readonly type: number;
  readonly begin: number | bigint;
}

export interface GgufParts {
  readonly version?: number;
  readonly pairs?: readonly (readonly [key: string, value: GgufValue])[];
  readonly tensors: readonly GgufTensor[];
  readonly data: Uint8Array | number;
  /** What is said, if it is not what is there. */
  readonly tensorCount?: bigint;
  readonly pairCount?: bigint;
  readonly alignment?: number;
}

export function ggufFile({
  version = 3,
  pairs = [],
  tensors,
  data,
  tensorCount,
  pairCount,
  alignment = 32,
}: GgufParts): Buffer {
  const header = Buffer.concat([
    Buffer.from("GGUF"),
    u32(version),
    u64(tensorCount ?? tensors.length),
    u64(pairCount ?? pairs.length),
    ...pairs.flatMap(([key, [type, value]]) => [ggufText(key), u32(type), value]),
    ...tensors.flatMap(({ name, extents, type, begin }) => [
      ggufText(name),
      u32(extents.length),
      ...extents.map(u64),
      u32(type),
      u64(begin),
    ]),
  ]);
  return Buffer.concat([header, Buffer.alloc((alignment - (header.length % alignment)) % alignment), toData(data)]);
}

export const ggufText = (text: string | Uint8Array): Buffer =>
  Buffer.concat([u64(Buffer.byteLength(text as string)), Buffer.from(text as string)]);
/** A list as a value. */
export const ggufList = (type: number, count: number | bigint, ...values: Uint8Array[]): GgufValue => [
  9,
  Buffer.concat([u32(type), u64(count), ...values]),
];

export interface ZipParts {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly isDeflated?: boolean;
  /** What is said, if it is not what is so. */
  readonly storedBytes?: number;
  readonly byteSize?: number;
  readonly crc?: number;
  readonly method?: number;
  readonly flags?: number;
  readonly headerOffset?: number;
  readonly nameInHeader?: string;
}

/**
 * A zip archive as `numpy.savez` writes it.
 * @param count what its end says. @param in64 whether sizes and places are where those above 4 GiB are.
 */
export function zipFile(members: readonly ZipParts[], count = members.length, in64 = false): Buffer {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const member of members) {
    const stored = member.isDeflated === true ? deflateRawSync(member.bytes) : Buffer.from(member.bytes);
    const method = member.method ?? (member.isDeflated === true ? 8 : 0);
    const storedBytes = member.storedBytes ?? stored.length;
    const byteSize = member.byteSize ?? member.bytes.length;
    const common = Buffer.concat([
      u16(member.flags ?? 0),
      u16(method),
      u32(0),
      u32(member.crc ?? crc32(member.bytes)),
      u32(in64 ? 0xffff_ffff : storedBytes),
      u32(in64 ? 0xffff_ffff : byteSize),
    ]);
    const place = member.headerOffset ?? offset;
    // An extra field of another kind comes before the one with the sizes.
    const values = [u16(0xcafe), u16(2), u16(0), u16(1), u16(24), u64(byteSize), u64(storedBytes), u64(place)];
    const extra = in64 ? Buffer.concat(values) : Buffer.alloc(0);
    const name = Buffer.from(member.name);
    const ownName = Buffer.from(member.nameInHeader ?? member.name);
    const local = Buffer.concat([u32(0x0403_4b50), u16(20), common, u16(ownName.length), u16(0), ownName, stored]);
    const lengths = Buffer.concat([u16(name.length), u16(extra.length), u16(0), u16(0), u16(0), u32(0)]);
    const at = u32(in64 ? 0xffff_ffff : place);
    directory.push(Buffer.concat([u32(0x0201_4b50), u16(20), u16(20), common, lengths, at, name, extra]));
    parts.push(local);
    offset += local.length;
  }
  const size = directory.reduce((sum, entry) => sum + entry.length, 0);
  if (!in64) {
    const end = [u32(0x0605_4b50), u32(0), u16(count), u16(count), u32(size), u32(offset), u16(0)];
    return Buffer.concat([...parts, ...directory, ...end]);
  }
  const end64 = [u32(0x0606_4b50), u64(44), u32(0), u64(0), u64(count), u64(count), u64(size), u64(offset)];
  const locator = [u32(0x0706_4b50), u32(0), u64(offset + size), u32(1)];
  const end = [u32(0x0605_4b50), u32(0), u16(0xffff), u16(0xffff), u32(0xffff_ffff), u32(0xffff_ffff), u16(0)];
  return Buffer.concat([...parts, ...directory, ...end64, ...locator, ...end]);
}

export function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16LE(value);
  return bytes;
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

export function u64(value: number | bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

function toData(data: Uint8Array | number): Uint8Array {
  return typeof data === "number" ? Buffer.alloc(data) : data;
}
