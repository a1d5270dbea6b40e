/**
 * Keys that an object of a JSON text has twice: a parser keeps one of them in silence, another parser the other, and whoever
 * wrote both meant something else. Fed by who reads the text, `json-bounds.ts`.
 */

import { TensordError } from "../error.ts";
import { quote } from "../naming.ts";

/** More than any schema's object has: one with as many different keys is refused by its schema. */
const keysCompared = 64;

/** A key's sign where it is spelled with escapes: as any other might be read. */
const escaped = -1;

/** Follows one text. What it keeps is numbers, since large texts have hundreds of thousands of keys. */
export class JsonKeys {
  readonly #text: string;
  /** Of each key of the objects that are open: where it begins and ends, and what tells it from most others at once. */
  readonly #starts: number[] = [];
  readonly #ends: number[] = [];
  readonly #signs: number[] = [];
  /** Of each object that is open: how many keys there were before it. */
  readonly #firsts: number[] = [];

  constructor(text: string) {
    this.#text = text;
  }

  openObject(): void {
    this.#firsts.push(this.#starts.length);
  }

  closeObject(): void {
    const first = this.#firsts.pop() ?? 0;
    this.#starts.length = first;
    this.#ends.length = first;
    this.#signs.length = first;
  }

  /** A string, from the quote at `start` to the one at `end`. @throws TensordError `validation-failed` of a key that was there. */
  addString(start: number, end: number): void {
    const first = this.#firsts.at(-1);
    if (first === undefined || !this.#isKey(end)) return;
    const count = this.#starts.length;
    if (count - first >= keysCompared) return;
    const sign = this.#toSign(start, end);
    for (let i = first; i < count; i++) {
      const other = this.#signs[i] as number;
      if (sign !== other && sign !== escaped && other !== escaped) continue;
      const key = this.#read(start, end);
      if (key === this.#read(this.#starts[i] as number, this.#ends[i] as number)) throw twice(key);
    }
    this.#starts.push(start);
    this.#ends.push(end);
    this.#signs.push(sign);
  }

  /** Whether the string that ends at `end` has a colon behind it. */
  #isKey(end: number): boolean {
    for (let at = end + 1; ; at++) {
      const character = this.#text.charCodeAt(at);
      if (character === 0x3a) return true;
      // JSON's four blanks, RFC 8259 section 2; NaN at the end.
      if (character !== 0x20 && character !== 0x0a && character !== 0x0d && character !== 0x09) return false;
    }
  }

  /** Its length and its first character in one number, or that it has escapes. */
  #toSign(start: number, end: number): number {
    for (let at = start + 1; at < end; at++) if (this.#text.charCodeAt(at) === 0x5c) return escaped;
    return (end - start) * 0x10000 + this.#text.charCodeAt(start + 1);
  }

  #read(start: number, end: number): string {
    const quoted = this.#text.slice(start, end + 1);
    if (!quoted.includes("\\")) return quoted.slice(1, -1);
    try {
      return JSON.parse(quoted) as string;
    } catch {
      // Broken: the parser says so.
      return quoted;
    }
  }
}

function twice(key: string): TensordError {
  return new TensordError(
    "validation-failed",
    `Cannot accept the request: its JSON has the key ${quote(key)} twice in one object, want it once`,
    { hint: "Which of the two counts is not for the server to guess." },
  );
}
