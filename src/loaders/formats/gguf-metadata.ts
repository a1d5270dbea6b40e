/** What a GGUF file says of itself: pairs of a key and a typed value, of which short ones are kept as text. Pure. */

import { limits } from "../../memory/limits.ts";
import { quote } from "../../memory/naming.ts";
import { fileLimits } from "../limits.ts";
import type { GgufCursor } from "./gguf-cursor.ts";
import { invalid } from "./refusal.ts";

export interface GgufPairs {
  readonly metadata: Readonly<Record<string, string>>;
  /** `general.alignment`. */
  readonly alignment: number | undefined;
}

/** The least bytes of a pair: its key's length, its type, and a value of one byte. */
const leastPairBytes = 13;
const alignmentKey = "general.alignment";
const [textType, listType, u32Type] = [8, 9, 4];

/** Types of one size, by their numbers in the file. */
const scalars: ReadonlyMap<number, { readonly byteSize: number; read(cursor: GgufCursor): number | bigint | boolean }> =
  new Map([
    [0, { byteSize: 1, read: (cursor) => cursor.u8() }],
    [1, { byteSize: 1, read: (cursor) => cursor.i8() }],
    [2, { byteSize: 2, read: (cursor) => cursor.u16() }],
    [3, { byteSize: 2, read: (cursor) => cursor.i16() }],
    [u32Type, { byteSize: 4, read: (cursor) => cursor.u32() }],
    [5, { byteSize: 4, read: (cursor) => cursor.i32() }],
    [6, { byteSize: 4, read: (cursor) => cursor.f32() }],
    [7, { byteSize: 1, read: (cursor) => cursor.u8() !== 0 }],
    [10, { byteSize: 8, read: (cursor) => cursor.u64() }],
    [11, { byteSize: 8, read: (cursor) => cursor.i64() }],
    [12, { byteSize: 8, read: (cursor) => cursor.f64() }],
  ]);

/** The pairs, with the cursor before their count. */
export function readPairs(cursor: GgufCursor): GgufPairs {
  const count = cursor.count("pairs of metadata", leastPairBytes, limits.headerMetadataEntries);
  const keys = new Set<string>();
  const kept: [string, string][] = [];
  let keptCharacters = 0;
  let alignment: number | undefined;
  for (let index = 0; index < count; index++) {
    const key = cursor.text("a key");
    if (keys.has(key)) throw invalid(`the key ${quote(key)} occurs twice, want each key once`);
    keys.add(key);
    const type = cursor.u32();
    const value = readValue(cursor, type, key, 0);
    if (key === alignmentKey) alignment = toAlignment(type, value);
    if (value === undefined) continue;
    keptCharacters += key.length + value.length;
    if (keptCharacters <= fileLimits.metadataCharacters) kept.push([key, value]);
    else keptCharacters -= key.length + value.length;
  }
  // Unlike an assignment, fromEntries makes "__proto__" a key like any other.
  return { metadata: Object.fromEntries(kept), alignment };
}

/** A value as text, or undefined of one that is passed over: a list of more than a few values. */
function readValue(cursor: GgufCursor, type: number, key: string, depth: number): string | undefined {
  const scalar = scalars.get(type);
  if (scalar !== undefined) return String(scalar.read(cursor));
  if (type === textType) return cursor.text(`the value of ${quote(key)}`);
  if (type === listType) return readList(cursor, key, depth + 1);
  throw invalid(`the value of ${quote(key)} is of type ${type}, want one of 0 to 12`);
}

function readList(cursor: GgufCursor, key: string, depth: number): string | undefined {
  if (depth > fileLimits.listDepth) {
    throw invalid(`lists of ${quote(key)} nest deeper than ${fileLimits.listDepth}, want numbers or texts in them`);
  }
  const type = cursor.u32();
  const scalar = scalars.get(type);
  // A text has its length before it, a list its type and length.
  const count = cursor.count(`values of ${quote(key)}`, scalar?.byteSize ?? (type === listType ? 12 : 8));
  const isKept = count <= fileLimits.listValues;
  if (scalar !== undefined && !isKept) {
    cursor.skip(count * scalar.byteSize);
    return undefined;
  }
  const values: string[] = [];
  for (let index = 0; index < count; index++) {
    if (!isKept && type === textType) {
      // A vocabulary has hundreds of thousands.
      cursor.skip(cursor.count(`bytes of a value of ${quote(key)}`, 1));
      continue;
    }
    const value = readValue(cursor, type, key, depth);
    if (isKept) values.push(type === textType ? JSON.stringify(value) : (value ?? "null"));
  }
  return isKept ? `[${values.join(",")}]` : undefined;
}

function toAlignment(type: number, value: string | undefined): number {
  const alignment = type === u32Type ? Number(value) : 0;
  if (alignment > 0 && (alignment & (alignment - 1)) === 0) return alignment;
  throw invalid(`its ${alignmentKey} is ${value ?? "a list"} of type ${type}, want a power of two of type ${u32Type}`);
}
