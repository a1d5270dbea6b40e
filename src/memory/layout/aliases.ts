/**
 * Aliases: tensors whose bytes are another tensor's, whole or inside it. What one may be, and how `__metadata__` says it:
 * the format itself has one tensor for each byte. Pure.
 */

import { TensordError } from "../error.ts";
import { limits } from "../limits.ts";
import { quote } from "../naming.ts";
import { type Dtype, dtypeBits } from "./dtype.ts";
import { Cursor } from "./header-text.ts";

/** The key of `__metadata__` whose text lists a file's aliases. */
export const aliasesKey = "tensord.aliases";

/** An alias, or the tensor whose bytes it shows. */
export interface Tied {
  readonly name: string;
  readonly dtype: Dtype;
  readonly byteSize: number;
  readonly aliasOf?: string | undefined;
  readonly aliasByteOffset?: number | undefined;
}

/**
 * The tensor whose bytes `alias` shows, or undefined of one that has its own. An alias lies in its tensor, and its elements at
 * multiples of their size. That tensor's own size is such a multiple as well: only so can a layout without gaps put it, and
 * whatever comes after it, where the elements are aligned.
 * @throws TensordError `validation-failed`
 */
export function findTarget<Target extends Tied>(alias: Tied, tensors: ReadonlyMap<string, Target>): Target | undefined {
  const { name, dtype, byteSize, aliasOf, aliasByteOffset: begin = 0 } = alias;
  if (aliasOf === undefined) {
    if (alias.aliasByteOffset === undefined) return undefined;
    const detail = `Cannot place tensor ${quote(name)}: it has alias_byte_offset and no alias_of, want both or none`;
    throw new TensordError("validation-failed", detail, { hint: "Say in alias_of whose bytes these are." });
  }
  const target = tensors.get(aliasOf);
  if (target === undefined) throw refused(alias, "there is no such tensor, want one of the same region");
  if (target.aliasOf !== undefined) {
    throw refused(alias, `that is an alias itself, want the tensor that has the bytes, ${quote(target.aliasOf)}`);
  }
  if (!Number.isSafeInteger(begin) || begin < 0) {
    throw refused(alias, `it begins at byte ${begin}, want a whole number from 0`);
  }
  if (begin + byteSize > target.byteSize) {
    throw refused(alias, `it has bytes ${begin} to ${begin + byteSize}, want at most ${target.byteSize}`);
  }
  const multiple = elementBytes(dtype);
  if (begin % multiple !== 0 || target.byteSize % multiple !== 0) {
    const state = `it begins at byte ${begin} of ${target.byteSize}`;
    throw refused(alias, `${state}, want multiples of ${multiple}, or elements of ${dtype} are not aligned`);
  }
  return target;
}

function refused({ name, aliasOf = "" }: Tied, why: string): TensordError {
  const detail = `Cannot make tensor ${quote(name)} an alias of ${quote(aliasOf)}: ${why}`;
  return new TensordError("validation-failed", detail, {
    hint: "Correct what the sentence names, or leave alias_of out: then the tensor has bytes of its own.",
  });
}

/** Where elements of a dtype may begin: at multiples of this. */
export function elementBytes(dtype: Dtype): number {
  return Math.max(1, dtypeBits[dtype] / 8);
}

/** An alias as its text words it; nothing but the types, the counts and the uniqueness of names is checked. */
export interface AliasEntry {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly aliasOf: string;
  readonly aliasByteOffset: number;
}

/** The value of `aliasesKey`. */
export function toAliasText(aliases: readonly (Omit<Tied, "byteSize"> & Pick<AliasEntry, "shape">)[]): string {
  // Joined by hand, as the header is: an object would put names like "10" first and lose "__proto__".
  const members = aliases.map(({ name, dtype, shape, aliasOf, aliasByteOffset = 0 }) => {
    const place = `"alias_of":${JSON.stringify(aliasOf)},"alias_byte_offset":${aliasByteOffset}`;
    return `${JSON.stringify(name)}:{"dtype":"${dtype}","shape":[${shape.join(",")}],${place}}`;
  });
  return `{${members.join(",")}}`;
}

/** Reads that value, which anybody may have written. @throws TensordError `validation-failed` */
export function readAliasText(text: string): readonly AliasEntry[] {
  const cursor = new Cursor(text, aliasesKey);
  const entries: AliasEntry[] = [];
  cursor.object((name) => {
    if (entries.length === limits.regionTensors) {
      cursor.refuse("there is one alias more than allowed", `at most ${limits.regionTensors}`);
    }
    entries.push(readEntry(cursor, name));
  });
  cursor.end();
  return entries;
}

function readEntry(cursor: Cursor, name: string): AliasEntry {
  let dtype: string | undefined;
  let shape: readonly number[] | undefined;
  let aliasOf: string | undefined;
  let aliasByteOffset: number | undefined;
  cursor.object((key) => {
    if (key === "dtype") dtype = cursor.string();
    else if (key === "shape") shape = cursor.integers(limits.tensorDimensions);
    else if (key === "alias_of") aliasOf = cursor.string();
    else if (key === "alias_byte_offset") aliasByteOffset = cursor.integer();
    else cursor.refuse(`an alias has the field ${quote(key)}`, "dtype, shape, alias_of and alias_byte_offset alone");
  });
  if (dtype === undefined || shape === undefined || aliasOf === undefined || aliasByteOffset === undefined) {
    return cursor.refuse(`alias ${quote(name)} is incomplete`, "dtype, shape, alias_of and alias_byte_offset");
  }
  return { name, dtype, shape, aliasOf, aliasByteOffset };
}
