/** How a model file is refused: parsers say the reason, and one place adds the file's path. Pure. */

import { type FailureCode, TensordError } from "../../memory/error.ts";
import { quote, toPrintableLine } from "../../memory/naming.ts";

const opening = "Cannot read its content: ";

/** Of a file that is broken, or says what cannot be. @param state what is, and what is wanted. */
export function invalid(
  state: string,
  hint = "Get the file anew, or write it anew: this one is damaged, or made to look like what it is not.",
  cause?: unknown,
): TensordError {
  return new TensordError("invalid-model-file", `${opening}${state}`, { hint }, cause === undefined ? {} : { cause });
}

/** Of a file that may be whole, and that tensord does not load. @param hint what to do instead. */
export function unsupported(state: string, hint: string): TensordError {
  return new TensordError("unsupported-format", `${opening}${state}`, { hint });
}

/** A path in a sentence: whole, since the end tells one from another. */
export function quotePath(path: string): string {
  return toPrintableLine(JSON.stringify(path));
}

const ofParsers: readonly string[] = ["invalid-model-file", "unsupported-format", "validation-failed"];

/** What parsers throw, with the file's path. What a source throws, and what has a path already, stays as it is. */
export function withPath(path: string, error: unknown): unknown {
  if (!isOfParser(error) || "path" in error.facts) return error;
  const detail = `Cannot load ${quotePath(path)}: ${reasonOf(error)}`;
  return new TensordError(toCode(error), detail, { ...error.facts, path }, { cause: error });
}

/** The same, with the name of the archive's member that it is about. */
export function withMember(name: string, error: unknown): unknown {
  if (!isOfParser(error)) return error;
  const detail = `${opening}in its member ${quote(name)} ${reasonOf(error)}`;
  return new TensordError(toCode(error), detail, error.facts, { cause: error });
}

function isOfParser(error: unknown): error is TensordError {
  return error instanceof TensordError && ofParsers.includes(error.code);
}

function toCode({ code }: TensordError): FailureCode {
  return code === "unsupported-format" ? code : "invalid-model-file";
}

function reasonOf({ message }: TensordError): string {
  return message.startsWith(opening) ? message.slice(opening.length) : message.replace(/^Cannot /, "cannot ");
}
