/**
 * Answers of JSON: written once, and counted as they are written. In descriptors what changes is written each time; the tensors, of which there may be thousands, go in between as
 * the bytes that they were written to once.
 */

import type { Context, TypedResponse } from "hono";
import type { Region } from "../memory/state/region.ts";
import type { Store } from "../memory/state/store.ts";
import type { Environment } from "./environment.ts";
import { toRegionDetailFacts, toRegionFacts } from "./to-wire.ts";

export function toRegionBody(store: Store, region: Region): Uint8Array<ArrayBuffer> {
  return withTensors(toRegionFacts(store, region), region);
}

/** Asks the kernel who maps the region, which a list must not. */
export function toRegionDetailBody(store: Store, region: Region): Uint8Array<ArrayBuffer> {
  return withTensors(toRegionDetailFacts(store, region), region);
}

function withTensors(facts: object, { tensors }: Region): Uint8Array<ArrayBuffer> {
  const head = JSON.stringify(facts).slice(0, -1);
  return Buffer.concat([Buffer.from(`${head},"tensors":`), tensors.bytes, Buffer.from("}")]);
}

/** @param value what the document says that the route answers with `status`. */
export function answer<Value, Status extends 200 | 201>(c: Context<Environment>, value: Value, status: Status) {
  const response = answerJson(c, Buffer.from(JSON.stringify(value)), status);
  return response as Response & TypedResponse<Value, Status, "json">;
}

/** An answer whose JSON is written already. Its type is the route's: the document says what `body` is. */
export function answerJson(c: Context<Environment>, body: Uint8Array<ArrayBuffer>, status: 200 | 201): never {
  c.env?.sent?.(body.byteLength);
  return c.body(body, status, { "content-type": "application/json" }) as never;
}
