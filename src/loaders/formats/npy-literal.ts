/**
 * Reads the header of a `.npy` file: a Python dict of texts, True, False, whole numbers, tuples and lists, in bounded depth. Nothing of
 * it is evaluated. Pure.
 */

import { quote } from "../../memory/naming.ts";
import { invalid } from "./refusal.ts";

export type Literal = string | number | boolean | null | readonly Literal[];

const depthMaximum = 8;

/** @throws TensordError `invalid-model-file` of any other text. */
export function readLiteral(text: string): Readonly<Record<string, Literal>> {
  const reader = new Reader(text);
  const pairs = reader.dict();
  reader.end();
  return pairs;
}

class Reader {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  dict(): Record<string, Literal> {
    const pairs: [string, Literal][] = [];
    this.#expect("{");
    while (!this.#take("}")) {
      const key = this.#string();
      if (pairs.some(([other]) => other === key)) throw this.#refused(`the key ${quote(key)} occurs again`);
      this.#expect(":");
      pairs.push([key, this.#value(0)]);
      if (this.#take(",")) continue;
      this.#expect("}");
      break;
    }
    return Object.fromEntries(pairs);
  }

  end(): void {
    this.#skipSpace();
    if (this.#at < this.#text.length) throw this.#refused("there is more text");
  }

  #value(depth: number): Literal {
    if (depth > depthMaximum) throw this.#refused(`it nests deeper than ${depthMaximum}`);
    this.#skipSpace();
    const next = this.#text.charAt(this.#at);
    if (next === "(") return this.#items("(", ")", depth);
    if (next === "[") return this.#items("[", "]", depth);
    if (next === "'" || next === '"') return this.#string();
    for (const [word, value] of words) if (this.#take(word)) return value;
    return this.#integer();
  }

  #items(open: string, close: string, depth: number): readonly Literal[] {
    this.#expect(open);
    const items: Literal[] = [];
    while (!this.#take(close)) {
      items.push(this.#value(depth + 1));
      if (this.#take(",")) continue;
      this.#expect(close);
      break;
    }
    return items;
  }

  /** As `repr` writes it. One with a backslash is a name of a field, of which nothing is kept but that there is one. */
  #string(): string {
    this.#skipSpace();
    const [whole, , content] = /^(['"])((?:\\.|(?!\1)[^\\\n])*)\1/u.exec(this.#text.slice(this.#at)) ?? [];
    if (whole === undefined) throw this.#refused("there is no text in quotes");
    this.#at += whole.length;
    return content as string;
  }

  /** Digits, and the L that Python 2 wrote after long ones. */
  #integer(): number {
    const [whole, digits = ""] = /^(\d{1,16})L?(?![\w.])/.exec(this.#text.slice(this.#at)) ?? [];
    const value = Number(digits);
    if (whole === undefined || !Number.isSafeInteger(value)) {
      throw this.#refused(`there is no whole number from 0 to ${Number.MAX_SAFE_INTEGER}`);
    }
    this.#at += whole.length;
    return value;
  }

  #refused(state: string) {
    return invalid(`at character ${this.#at} of its header ${state}, want what numpy.save writes`);
  }

  #expect(word: string): void {
    if (!this.#take(word)) throw this.#refused(`there is no ${word}`);
  }

  #take(word: string): boolean {
    this.#skipSpace();
    if (!this.#text.startsWith(word, this.#at)) return false;
    this.#at += word.length;
    return true;
  }

  #skipSpace(): void {
    while (" \n\t".includes(this.#text.charAt(this.#at) || "x")) this.#at += 1;
  }
}

const words: readonly (readonly [string, boolean | null])[] = [
  ["True", true],
  ["False", false],
  ["None", null],
];
