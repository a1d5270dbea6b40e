/** What is stored as JSON, and how it is looked at one step deep. Pure. */

import { tokenPattern } from "../naming.ts";
import { JournalDamage } from "./journal-failure.ts";

export type Check = (value: unknown) => boolean;
/** A check for each key. The record may have more: a later version of ours may have been there. */
export type Shape<Stored> = Readonly<Record<keyof Stored, Check>>;

export const isText: Check = (value) => typeof value === "string";
export const isToken: Check = (value) => typeof value === "string" && tokenPattern.test(value);
export const isNumber: Check = Number.isSafeInteger;
export const isFlag: Check = (value) => typeof value === "boolean";
export const isObject: Check = (value) => typeof value === "object" && value !== null;
export const isList: Check = Array.isArray;
export const orNull =
  (check: Check): Check =>
  (value) =>
    value === null || check(value);
/** Rows that were written before it was kept have none. */
export const absentOr =
  (check: Check): Check =>
  (value) =>
    value === undefined || check(value);

/** @throws JournalDamage, as all of these do, if it is none of ours. */
export function parseStored<Stored>(text: string, shape: Shape<Stored>): Stored {
  const value = parseJson(text);
  checkShape(value, shape);
  return value as Stored;
}

export function checkShape<Stored>(value: Readonly<Record<string, unknown>> | null, shape: Shape<Stored>): void {
  for (const key in shape) {
    if (!shape[key](value?.[key])) throw new JournalDamage(`a record has no usable ${key}`);
  }
}

/** @throws JournalDamage if `text` is no JSON. */
export function parseJson(text: string): Readonly<Record<string, unknown>> | null {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new JournalDamage("a record is no JSON", { cause });
  }
}
