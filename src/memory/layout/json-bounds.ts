/**
/**
 * How deep a JSON text nests, how many values it holds, and whether an object has a key twice, found before it is parsed: a
 * parser takes seconds and gigabytes over a few megabytes of brackets, or of one object's members, and the event loop with it.
 */

import { TensordError } from "../error.ts";
import { limits } from "../limits.ts";
import { JsonKeys } from "./json-keys.ts";

/** @throws TensordError `validation-failed` if `text` nests deeper, or holds more, than any schema, or repeats a key. Broken JSON passes: the parser says so. */
export function checkJsonBounds(text: string): void {
  const keys = new JsonKeys(text);
  let depth = 0;
  let values = 1;
  /** Of the objects around this place, by depth: how many members came; of lists, which may be long, nothing. */
  const members: number[] = [];
  for (let at = 0; at < text.length; at++) {
    const character = text.charCodeAt(at);
    if (character === 0x22) {
      const end = endOfString(text, at);
      keys.addString(at, end);
      at = end;
    } else if (character === 0x7b) {
      keys.openObject();
      depth += 1;
      members[depth] = 1;
    } else if (character === 0x7d) {
      keys.closeObject();
      depth -= 1;
    } else if (character === 0x5b) {
      depth += 1;
      members[depth] = Number.NEGATIVE_INFINITY;
    } else if (character === 0x5d) depth -= 1;
    else if (character === 0x2c) {
      values += 1;
      const count = (members[depth] ?? Number.NEGATIVE_INFINITY) + 1;
      members[depth] = count;
      if (count > limits.requestBodyMembers) throw tooWide();
    }
    if (depth > limits.requestBodyDepth) throw tooDeep();
    if (values > limits.requestBodyValues) throw tooMany();
  }
}

/** The index of the quote that ends the string which begins at `start`. */
function endOfString(text: string, start: number): number {
  for (let at = text.indexOf('"', start + 1); at !== -1; at = text.indexOf('"', at + 1)) {
    let backslashes = 0;
    while (text.charCodeAt(at - 1 - backslashes) === 0x5c) backslashes += 1;
    if (backslashes % 2 === 0) return at;
  }
  return text.length;
}

function tooMany(): TensordError {
  return new TensordError(
    "validation-failed",
    `Cannot accept the request: its JSON has more than ${limits.requestBodyValues} values`,
    { hint: "Many tensors can be split into several regions." },
  );
}

function tooWide(): TensordError {
  return new TensordError(
    "validation-failed",
    `Cannot accept the request: an object of its JSON has more than ${limits.requestBodyMembers} members`,
    { hint: "See the operation's schema in /openapi.json." },
  );
}

function tooDeep(): TensordError {
  return new TensordError(
    "validation-failed",
    `Cannot accept the request: its JSON nests deeper than ${limits.requestBodyDepth} levels`,
    { hint: "See the operation's schema in /openapi.json." },
  );
}
