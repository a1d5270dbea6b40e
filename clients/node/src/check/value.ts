/** What an argument may be, and how a refusal quotes one that is something else. */

import { inspect } from "node:util";
import { TensordError } from "../errors.ts";

const maxQuoteCharacters = 160;

/** What a value must be; `want` is how a message says it. */
export interface Wanted {
  readonly want: string;
  readonly accepts: (value: unknown) => boolean;
  /** What to do instead, for mistakes that many make. */
  readonly hint?: (value: unknown) => string | undefined;
}

/** One kind of value. */
export interface Kind<Value> extends Wanted {
  /** For the compiler: a kind of more or fewer values than an option's type has does not fit that option. */
  readonly exactly?: (value: Value) => Value;
}

/** @throws TensordError `validation-failed`, with the value quoted */
export function checkArgument(action: string, what: string, value: unknown, kind: Wanted): void {
  if (!kind.accepts(value)) throw refused(action, what, value, kind);
}

/** What to throw for a value that is not of its kind. */
export function refused(action: string, what: string, value: unknown, { want, hint }: Wanted): TensordError {
  return new TensordError("validation-failed", `Cannot ${action}: ${what} is ${quote(value)}, want ${want}`, {
    hint: hint?.(value),
  });
}

/** A value as messages show it: on one line, and never long. */
export function quote(value: unknown): string {
  const shown = typeof value === "string" ? JSON.stringify(value) : inspect(value, inspection);
  return shown.length <= maxQuoteCharacters ? shown : `${shown.slice(0, maxQuoteCharacters)}…`;
}

const inspection = { depth: 1, maxArrayLength: 8, maxStringLength: 80, breakLength: Number.POSITIVE_INFINITY };

/** Whether it is an object of somebody's own fields: no list, no map, no typed array, no instance of a class. */
export function isPlain(value: unknown): value is Readonly<Record<string, unknown>> {
  if (typeof value !== "object" || value === null) return false;
  const prototype = Object.getPrototypeOf(value);
  // The last but one of the chain, whichever realm it is of: Jest runs each test in a realm of its own.
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}
