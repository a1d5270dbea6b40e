/**
 * Holds a caller's options against a table of all that the call takes: what is not in it is refused, and the nearest that is
 * is named.
 */

import { TensordError } from "../errors.ts";
import { isPlain, type Kind, quote, refused, type Wanted } from "./value.ts";

type KeyOf<Options> = Options extends unknown ? keyof Options : never;
type ValueOf<Options, Key> = Options extends unknown ? (Key extends keyof Options ? Options[Key] : never) : never;

/** A kind for every option of the type: one that is forgotten, or that there is not, does not compile. */
export type Table<Options> = {
  readonly [Key in KeyOf<Options>]-?: Kind<Exclude<ValueOf<Options, Key>, undefined>>;
};

/** A table of exactly the options of the type: what is spread into it by mistake does not compile either. */
export function tableOf<Options>() {
  return <Given extends Table<Options>>(table: Given & Record<Exclude<keyof Given, KeyOf<Options>>, never>): Given =>
    table;
}

const plain: Wanted = { want: "an object of options", accepts: isPlain };

/** @throws TensordError `validation-failed`, with the option and its value quoted */
export function checkOptions<Options extends object>(action: string, table: Table<Options>, given: Options): void {
  if (!isPlain(given)) throw refused(action, "what should be its options", given, plain);
  const keys = Object.keys(given);
  for (const key of keys) {
    if (!Object.hasOwn(table, key)) throw unknown(action, key, given[key], Object.keys(table));
  }
  for (const key of keys) {
    const value = given[key];
    const kind = (table as Readonly<Record<string, Wanted>>)[key];
    if (value !== undefined && kind?.accepts(value) === false) throw refused(action, key, value, kind);
  }
}

/** What to throw for a field that a call does not take. */
export function unknown(action: string, key: string, value: unknown, known: readonly string[]): TensordError {
  return new TensordError("validation-failed", `Cannot ${action}: it takes no ${key}, which is ${quote(value)}`, {
    hint: `is ${nearest(key, known)} meant? It takes ${known.join(", ")}`,
  });
}

/** The known word that the fewest changes make of a word, whatever its case and underscores. */
function nearest(word: string, known: readonly string[]): string | undefined {
  const bare = (each: string) => each.replaceAll("_", "").toLowerCase();
  const changes = known.map((each) => countChanges(bare(word), bare(each)));
  return known[changes.indexOf(Math.min(...changes))];
}

/** How many letters to insert, remove or replace (Levenshtein). */
function countChanges(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (const [at, letter] of [...from.slice(0, 64)].entries()) {
    const next = [at + 1];
    for (const [index, other] of [...to].entries()) {
      const replaced = (row[index] ?? 0) + (letter === other ? 0 : 1);
      next.push(Math.min(replaced, (row[index + 1] ?? 0) + 1, (next[index] ?? 0) + 1));
    }
    row = next;
  }
  return row.at(-1) ?? 0;
}
