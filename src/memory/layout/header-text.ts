/**
 * Reads the JSON text of a safetensors header, character by character and strictly: `JSON.parse` would keep the last of
 * two equal names, put names like "10" first, and take 1.0 for a size. What the values mean is decided in `layout.ts`.
 */

import { TensordError } from "../error.ts";
import { limits } from "../limits.ts";
import { quote } from "../naming.ts";

const header = "safetensors header";
/** Characters of a number: more than any that a program writes. */
const longestWord = 64;

/** One tensor as the header words it; nothing but the types, the counts and the uniqueness of names is checked. */
export interface HeaderEntry {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  /** `[begin, end]` in bytes from the start of the data. */
  readonly dataOffsets: readonly [number, number];
}

export interface HeaderText {
  readonly metadata: Readonly<Record<string, string>>;
  /** In the order of the text. */
  readonly entries: readonly HeaderEntry[];
}

/**
 * @param bytes the whole header without its length, padding included.
 * @throws TensordError `validation-failed` on anything that is not one flat table of tensors within the limits.
 */
export function readHeaderText(bytes: Uint8Array): HeaderText {
  const text = decodeUtf8(bytes);
  const cursor = new Cursor(text);
  const entries: HeaderEntry[] = [];
  let metadata: Readonly<Record<string, string>> = {};
  if (!text.startsWith("{")) cursor.refuse("it does not begin with {", "a JSON object");
  cursor.object((name) => {
    if (name === "__metadata__") {
      metadata = readMetadata(cursor);
    } else if (entries.length === limits.regionTensors) {
      cursor.refuse("there is one tensor more than allowed", `at most ${limits.regionTensors}`);
    } else {
      entries.push(readEntry(cursor, name));
    }
  });
  cursor.end();
  return { metadata, entries };
}

function decodeUtf8(bytes: Uint8Array): string {
  try {
    // Without ignoreBOM a byte order mark would vanish, and the header would seem to begin with {.
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw refused("its bytes are not UTF-8", "JSON text", cause);
  }
}

function refused(state: string, want: string, cause?: unknown, what = header): TensordError {
  const detail = `Cannot read ${what}: ${state}, want ${want}`;
  const hint = "Write the file anew with a safetensors library.";
  return new TensordError("validation-failed", detail, { hint }, cause === undefined ? undefined : { cause });
}

function readMetadata(cursor: Cursor): Readonly<Record<string, string>> {
  const pairs: [string, string][] = [];
  cursor.object((key) => {
    if (pairs.length === limits.headerMetadataEntries) {
      cursor.refuse("__metadata__ has one entry more than allowed", `at most ${limits.headerMetadataEntries}`);
    }
    pairs.push([key, cursor.string()]);
  });
  // Unlike an assignment, fromEntries makes "__proto__" a key like any other.
  return Object.fromEntries(pairs);
}

function readEntry(cursor: Cursor, name: string): HeaderEntry {
  let dtype: string | undefined;
  let shape: readonly number[] | undefined;
  let dataOffsets: readonly number[] | undefined;
  cursor.object((key) => {
    if (key === "dtype") dtype = cursor.string();
    else if (key === "shape") shape = cursor.integers(limits.tensorDimensions);
    else if (key === "data_offsets") dataOffsets = cursor.integers(2);
    else cursor.refuse(`a tensor has the field ${quote(key)}`, "dtype, shape and data_offsets alone");
  });
  const [begin, end] = dataOffsets ?? [];
  if (dtype === undefined || shape === undefined || begin === undefined || end === undefined) {
    return cursor.refuse(`tensor ${quote(name)} is incomplete`, "a dtype, a shape and two data_offsets");
  }
  return { name, dtype, shape, dataOffsets: [begin, end] };
}

/** A place in a JSON text. Depth is bounded by its callers: none of them recurses. */
export class Cursor {
  readonly #text: string;
  readonly #what: string;
  #at = 0;

  /** @param what the text is, as messages call it. */
  constructor(text: string, what = header) {
    this.#text = text;
    this.#what = what;
  }

  refuse(state: string, want: string): never {
    throw refused(`at character ${this.#at} ${state}`, want, undefined, this.#what);
  }

  /** Calls `visit` for each key, with the cursor at its value. Refuses a second value of one key. */
  object(visit: (key: string) => void): void {
    this.#expect("{");
    if (this.#take("}")) return;
    const keys = new Set<string>();
    do {
      const key = this.string();
      if (keys.has(key)) this.refuse(`the name ${quote(key)} occurs again`, "each name once");
      keys.add(key);
      this.#expect(":");
      visit(key);
    } while (this.#take(","));
    this.#expect("}");
  }

  /** An array of whole numbers, at most `maximum` of them. */
  integers(maximum: number): number[] {
    this.#expect("[");
    const values: number[] = [];
    if (this.#take("]")) return values;
    do {
      if (values.length === maximum) this.refuse("there is one number more than allowed", `at most ${maximum}`);
      values.push(this.integer());
    } while (this.#take(","));
    this.#expect("]");
    return values;
  }

  string(): string {
    this.#expect('"');
    const start = this.#at - 1;
    let plain = true;
    for (;;) {
      const code = this.#text.charCodeAt(this.#at); // NaN at the end
      this.#at += 1;
      if (code === 0x22) break;
      if (code === 0x5c) {
        plain = false;
        this.#at += 1;
      } else if (!(code >= 0x20)) {
        this.refuse("a string is broken off", "a closing quote, and control characters escaped");
      }
    }
    return plain ? this.#text.slice(start + 1, this.#at - 1) : this.#unescape(this.#text.slice(start, this.#at));
  }

  /** A text, or a number, true, false or null as it is written. */
  scalar(): string {
    this.#skipSpace();
    if (this.#text.charAt(this.#at) === '"') return this.string();
    const word = /^(?:-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null)(?![\w.])/.exec(
      this.#text.slice(this.#at, this.#at + longestWord),
    )?.[0];
    if (word === undefined) return this.refuse("there is no single value", "a text, a number, true, false or null");
    this.#at += word.length;
    return word;
  }

  /** Nothing but white space may follow. */
  end(): void {
    this.#skipSpace();
    if (this.#at < this.#text.length) this.refuse("there is more text", "nothing but spaces after the closing }");
  }

  #unescape(literal: string): string {
    let value: unknown;
    try {
      value = JSON.parse(literal);
    } catch {
      return this.refuse("a string has a broken escape", "JSON");
    }
    if (typeof value !== "string") return this.refuse("a string is broken", "JSON");
    return value.isWellFormed() ? value : this.refuse("a string has half a surrogate pair", "Unicode text");
  }

  /** Digits alone, without sign, point or exponent, up to what a JavaScript number holds exactly. */
  integer(): number {
    this.#skipSpace();
    const start = this.#at;
    while (this.#isDigit()) this.#at += 1;
    const digits = this.#text.slice(start, Math.min(this.#at, start + 17));
    const value = Number(digits);
    const isPlain = digits.length > 0 && !(digits.length > 1 && digits.startsWith("0"));
    if (!isPlain || !Number.isSafeInteger(value) || ".eE".includes(this.#text.charAt(this.#at) || " ")) {
      this.refuse("there is no plain number", `a whole number from 0 to ${Number.MAX_SAFE_INTEGER}`);
    }
    return value;
  }

  #isDigit(): boolean {
    const code = this.#text.charCodeAt(this.#at);
    return code >= 0x30 && code <= 0x39;
  }

  #expect(character: string): void {
    if (!this.#take(character)) this.refuse("the text is not what it should be", character);
  }

  #take(character: string): boolean {
    this.#skipSpace();
    if (this.#text.charAt(this.#at) !== character) return false;
    this.#at += 1;
    return true;
  }

  #skipSpace(): void {
    for (;;) {
      const code = this.#text.charCodeAt(this.#at);
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return;
      this.#at += 1;
    }
  }
}
