/**
 * The body of a large creation taken apart: its tensors, checked, and what else it says, which is short. Done where nobody
 * waits for the event loop. Pure; what the rest means is read by the schema of the route.
 */

import { TensordError } from "../error.ts";
import { limits } from "../limits.ts";
import { quote } from "../naming.ts";
import { isDtype } from "./dtype.ts";
import { checkJsonBounds } from "./json-bounds.ts";
import type { TensorSpec } from "./layout.ts";

export interface AskedText {
  /** The body's JSON without its tensors. */
  readonly rest: string;
  /** Undefined if it has none, or something else in their place, which then is in the rest. */
  readonly tensors: readonly TensorSpec[] | undefined;
  /** What is wrong with the tensors: as much as an answer shows, and how many of them are wrong. */
  readonly issues: readonly Issue[];
  readonly issueCount: number;
}

export interface Issue {
  readonly path: readonly (string | number)[];
  readonly message: string;
}

/** @throws TensordError `malformed-body`, or `validation-failed` of what is no list of tensors. */
export function readAskedText(bytes: Uint8Array): AskedText {
  const body = parse(bytes);
  const isMany = typeof body === "object" && body !== null && "tensors" in body && Array.isArray(body.tensors);
  const { tensors, ...others } = isMany ? (body as { tensors: unknown[] }) : { tensors: undefined };
  const rest = JSON.stringify(isMany ? others : body);
  if (rest.length > limits.requestBodyBytes) {
    throw new TensordError(
      "validation-failed",
      `Cannot accept the request: without its tensors it has more than ${limits.requestBodyBytes} characters`,
      { hint: "See the operation's schema in /openapi.json." },
    );
  }
  const issues = [...findIssues(tensors ?? [])];
  return {
    rest,
    tensors: issues.length > 0 ? undefined : (tensors as readonly AskedTensor[] | undefined)?.map(toSpec),
    issues: issues.slice(0, limits.validationIssues),
    issueCount: issues.length,
  };
}

function parse(bytes: Uint8Array): unknown {
  const text = decode(bytes);
  checkJsonBounds(text);
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw malformed(cause);
  }
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw malformed(cause);
  }
}

function malformed(cause: unknown): TensordError {
  const hint = "Send one JSON object, in UTF-8.";
  return new TensordError("malformed-body", "Cannot read the body: it is not JSON", { hint }, { cause });
}

function* findIssues(tensors: readonly unknown[]): Generator<Issue> {
  if (tensors.length > limits.regionTensors) {
    return yield { path: ["tensors"], message: `want at most ${limits.regionTensors} tensors` };
  }
  for (const [index, tensor] of tensors.entries()) {
    const mistake = findMistake(tensor);
    if (mistake !== undefined) yield { path: ["tensors", index, ...mistake.path], message: mistake.message };
  }
}

/** What a tensor of a request may have. A member that its schema gets is checked here, too. */
export const tensorMembers = ["name", "dtype", "shape", "alias_of", "alias_byte_offset"] as const;

/** A tensor in the words of the wire. */
export interface AskedTensor extends Pick<TensorSpec, "name" | "dtype" | "shape"> {
  readonly alias_of?: string | undefined;
  readonly alias_byte_offset?: number | undefined;
}

export function toSpec({ name, dtype, shape, alias_of, alias_byte_offset }: AskedTensor): TensorSpec {
  return { name, dtype, shape, aliasOf: alias_of, aliasByteOffset: alias_byte_offset };
}

/** The first thing that keeps it from being a tensor to lay out; what the layout looks at, such as the name, is its business. */
function findMistake(tensor: unknown): Issue | undefined {
  if (typeof tensor !== "object" || tensor === null || Array.isArray(tensor)) {
    return { path: [], message: "want an object with name, dtype and shape" };
  }
  const { name, dtype, shape, alias_of, alias_byte_offset } = tensor as Partial<Record<keyof AskedTensor, unknown>>;
  if (typeof name !== "string" || name === "") return { path: ["name"], message: "want a text that is not empty" };
  if (typeof dtype !== "string" || !isDtype(dtype)) return { path: ["dtype"], message: "want a dtype of safetensors" };
  if (!Array.isArray(shape)) return { path: ["shape"], message: "want a list of whole numbers" };
  if (shape.length > limits.tensorDimensions) {
    return { path: ["shape"], message: `want at most ${limits.tensorDimensions} dimensions` };
  }
  const at = shape.findIndex((dimension) => !isByteCount(dimension));
  if (at !== -1) return { path: ["shape", at], message: `want a whole number from 0 to ${limits.regionBytes}` };
  if (alias_of !== undefined && (typeof alias_of !== "string" || alias_of === "")) {
    return { path: ["alias_of"], message: "want a text that is not empty" };
  }
  if (alias_byte_offset !== undefined && !isByteCount(alias_byte_offset)) {
    return { path: ["alias_byte_offset"], message: `want a whole number from 0 to ${limits.regionBytes}` };
  }
  for (const member in tensor) {
    if ((tensorMembers as readonly string[]).includes(member)) continue;
    return { path: [], message: `want ${tensorMembers.join(", ")} alone, not ${quote(member)}` };
  }
  return undefined;
}

function isByteCount(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
