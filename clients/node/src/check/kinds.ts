/** The kinds of values that callers pass. What only the server can judge, such as the bounds of a TTL, is left to it. */

import { isDtype } from "../dtype.ts";
import { isPlain, type Kind } from "./value.ts";

const isNumber = (value: unknown) => typeof value === "number" && !Number.isNaN(value);

export const text: Kind<string> = { want: "text", accepts: (value) => typeof value === "string" };

export const flag: Kind<boolean> = { want: "true or false", accepts: (value) => typeof value === "boolean" };

/** The server takes false as if it were left out, and so does this. */
export const onlyTrue: Kind<true> = { want: "true, or left out", accepts: flag.accepts };

/** A wait of this process, whose end may be never. */
export const waitMs: Kind<number> = {
  want: "a number of milliseconds from 0",
  accepts: (value) => isNumber(value) && (value as number) >= 0,
};

/** A time that the server counts. */
export const wholeMs: Kind<number> = { want: "a whole number of milliseconds from 0", accepts: isSize };

export const bytes: Kind<number> = { want: "a whole number of bytes from 0", accepts: isSize };

export const count: Kind<number> = { want: "a whole number from 0", accepts: isSize };

export const shape: Kind<readonly number[]> = {
  want: "a list of sizes, whole numbers from 0",
  accepts: (value) => Array.isArray(value) && value.every(isSize),
};

export const dtype: Kind<string> = {
  want: "a dtype as safetensors names it, such as F32, BF16, I64 or U8",
  accepts: (value) => typeof value === "string" && isDtype(value),
};

export const packed: Kind<Uint8Array> = {
  want: "the 128 bytes of a packed reference, as a Uint8Array",
  accepts: (value) => value instanceof Uint8Array && value.byteLength === 128,
};

export const texts: Kind<readonly string[]> = {
  want: "a list of texts",
  accepts: (value) => Array.isArray(value) && value.every(text.accepts),
};

export const textPair: Kind<readonly [string, string]> = {
  want: "a key and its value, as [key, value]",
  accepts: (value) => texts.accepts(value) && (value as readonly string[]).length === 2,
};

export const labels: Kind<Readonly<Record<string, string>>> = {
  want: "an object of texts",
  accepts: (value) => isPlain(value) && Object.values(value).every(text.accepts),
};

export const labelChanges: Kind<Readonly<Record<string, string | null>>> = {
  want: "an object of texts, and of null for what is to go",
  accepts: (value) => isPlain(value) && Object.values(value).every((each) => each === null || text.accepts(each)),
};

export const poolLimits: Kind<Readonly<Record<string, number | null>>> = {
  want: "an object of bytes by pool, null for no limit",
  accepts: (value) => isPlain(value) && Object.values(value).every((each) => each === null || isSize(each)),
};

/** By its tag, which other realms share. */
export const abortSignal: Kind<AbortSignal> = {
  want: "an AbortSignal",
  accepts: (value) => Object.prototype.toString.call(value) === "[object AbortSignal]",
  hint: (value) => (value instanceof AbortController ? "pass its signal" : undefined),
};

export const identified: Kind<string | { readonly id: string }> = {
  want: "an id, or what has one",
  accepts: (value) => idIn(value) !== undefined,
};

/** A region where no name is looked up. */
export const region: Kind<string | { readonly id: string }> = {
  want: 'a region, its descriptor, or its id, which begins with "reg_"',
  accepts: (value) => idIn(value)?.startsWith("reg_") === true,
  hint: (value) => (typeof value === "string" ? "client.get(name) finds a region by its name" : undefined),
};

export const nameOrRegion: Kind<string | readonly string[] | { readonly id: string }> = {
  want: "a name, a list of names, or a region's descriptor",
  accepts: (value) => typeof value === "string" || texts.accepts(value) || region.accepts(value),
};

export const nameOrOneRegion: Kind<string | { readonly id: string }> = {
  want: "a name, or a region's descriptor",
  accepts: (value) => typeof value === "string" || region.accepts(value),
};

export const nameOrNull: Kind<string | null> = {
  want: "a name, or null for a region without one",
  accepts: (value) => value === null || text.accepts(value),
};

export function callback<Type>(): Kind<Type> {
  return { want: "a function", accepts: (value) => typeof value === "function" };
}

export function oneOf<const Word extends string>(...words: readonly Word[]): Kind<Word> {
  const shown = words.map((word) => JSON.stringify(word));
  return { want: shown.join(" or "), accepts: (value) => (words as readonly unknown[]).includes(value) };
}

export function listOf<Value>({ want, accepts, hint }: Kind<Value>): Kind<readonly Value[]> {
  return {
    want: `a list, each ${want}`,
    accepts: (value) => Array.isArray(value) && value.every(accepts),
    ...(hint && { hint: (value) => (Array.isArray(value) ? hint(value.find((each) => !accepts(each))) : undefined) }),
  };
}

export function orNull<Value>({ want, accepts }: Kind<Value>): Kind<Value | null> {
  return { want: `${want}, or null`, accepts: (value) => value === null || accepts(value) };
}

function isSize(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function idIn(value: unknown): string | undefined {
  const id = typeof value === "object" && value !== null ? (value as { readonly id?: unknown }).id : value;
  return typeof id === "string" ? id : undefined;
}
