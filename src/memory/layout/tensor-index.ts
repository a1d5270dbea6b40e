/**
 * Where in a long list of tensors each one begins, found by its name: for each an entry of 8 bytes, the hash of its name
 * above its place in the list, in ascending order. Pure; the list and its index lie where the caller says.
 */

import assert from "node:assert/strict";
import type { Tensors } from "./tensors.ts";

export const indexEntryBytes = 8;

const begin = Buffer.from('{"name":');
const nameEnd = Buffer.from(',"dtype":');

/** The index of a list as `Tensors` writes it. Inside a string every quote is escaped, so both marks are where they seem to be. */
export function toTensorIndex({ bytes, count }: Tensors): Uint8Array {
  const list = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const entries = new BigUint64Array(count);
  let at = 0;
  for (let index = 0; index < count; index++) {
    const from = list.indexOf(begin, at);
    const to = list.indexOf(nameEnd, from);
    assert(from >= 0 && to >= 0, `a list has ${count} tensors`);
    entries[index] = toEntry(hashOf(list.subarray(from + begin.length, to)), from);
    at = to;
  }
  entries.sort();
  return new Uint8Array(entries.buffer);
}

/**
 * Places where a tensor of this name may begin: nearly always the one, and none where there is none.
 * @param readEntry reads the entry with this number, as `Buffer.readBigUInt64LE` does.
 */
export function* findPlaces(name: string, count: number, readEntry: (index: number) => bigint): Generator<number> {
  const hash = hashOf(Buffer.from(JSON.stringify(name)));
  const first = toEntry(hash, 0);
  let low = 0;
  for (let high = count; low < high; ) {
    const middle = (low + high) >>> 1;
    if (readEntry(middle) < first) low = middle + 1;
    else high = middle;
  }
  for (; low < count; low++) {
    const entry = readEntry(low);
    if (Number(entry >> 32n) !== hash) return;
    yield Number(entry & 0xffff_ffffn);
  }
}

/** Of a name as it stands in JSON, quotes included. */
function hashOf(literal: Uint8Array): number {
  return Bun.hash.xxHash32(literal);
}

function toEntry(hash: number, place: number): bigint {
  return (BigInt(hash) << 32n) | BigInt(place);
}
