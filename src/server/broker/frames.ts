/** What a message to the broker has to be before anybody looks at what it asks: one JSON object with an id and an op. Pure. */

import { checkJsonBounds } from "../../memory/layout/json-bounds.ts";

/** A request as it came. Its other members are the schemas' business. */
export interface Frame {
  readonly id: number;
  readonly op: string;
  readonly [member: string]: unknown;
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** @returns the request, or what the message is instead. */
export function parseFrame(bytes: Uint8Array): Frame | string {
  if (bytes.length === 0) return "it is empty";
  let value: unknown;
  try {
    const text = utf8.decode(bytes);
    checkJsonBounds(text);
    value = JSON.parse(text);
  } catch (error) {
    return error instanceof TypeError ? "it is not UTF-8" : `it is not JSON (${toReason(error)})`;
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) return "it is no JSON object";
  const { id, op } = value as Record<string, unknown>;
  if (!Number.isSafeInteger(id) || (id as number) < 0) return "its id is no whole number from 0 to 2^53 - 1";
  if (typeof op !== "string") return "it has no op";
  return value as Frame;
}

/** What a client sent comes back in part. */
function toReason(error: unknown): string {
  return String((error as Error).message).slice(0, 120);
}
