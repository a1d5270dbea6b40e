/**
 * Answers of JSON: written once, and counted as they are written. In descriptors what changes is written each time; the
 * tensors, of which there may be thousands, go in between as the bytes that they were written to once.
 */

import { setImmediate } from "node:timers/promises";
import type { Context, TypedResponse } from "hono";
import type { TensorList } from "../memory/layout/tensors.ts";
import { limits } from "../memory/limits.ts";
import type { Region } from "../memory/state/region.ts";
import type { Store } from "../memory/state/store.ts";
import type { Environment } from "./environment.ts";
import { toRegionDetailFacts, toRegionFacts } from "./to-wire.ts";

/** Of an answer's JSON: text, or bytes, or a list of tensors that is bytes already. */
export type Piece = string | Uint8Array | TensorList;

export function toRegionBody(store: Store, region: Region): readonly Piece[] {
  return withTensors(toRegionFacts(store, region), region);
}

/** Asks the kernel who maps the region, which a list must not. */
export function toRegionDetailBody(store: Store, region: Region): readonly Piece[] {
  return withTensors(toRegionDetailFacts(store, region), region);
}

function withTensors(facts: object, { tensors }: Region): readonly Piece[] {
  return [`${JSON.stringify(facts).slice(0, -1)},"tensors":`, tensors, "}"];
}

/** @param value what the document says that the route answers with `status`. */
export function answer<Value, Status extends 200 | 201>(c: Context<Environment>, value: Value, status: Status) {
  const response = answerPieces(c, [JSON.stringify(value)], status);
  return response as Response & TypedResponse<Value, Status, "json">;
}

/**
 * An answer whose JSON is written already. Its type is the route's: the document says what it is. A short one is sent at once,
 * a long one slice by slice.
 */
export function answerPieces(c: Context<Environment>, pieces: readonly Piece[], status: 200 | 201 | 202): never {
  let byteSize = 0;
  for (const piece of pieces) byteSize += typeof piece === "string" ? Buffer.byteLength(piece) : sizeOf(piece);
  c.env?.sent?.(byteSize);
  const body = byteSize <= limits.sliceBytes ? toText(pieces) : toStream(toSlices(pieces));
  return c.body(body as string, status, { "content-type": "application/json" }) as never;
}

// A byte order mark would be a mistake in JSON, and is not to vanish.
const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });

/** All of a short answer, which the runtime sends as it is. */
function toText(pieces: readonly Piece[]): string {
  let text = "";
  for (const piece of pieces) text += typeof piece === "string" ? piece : utf8.decode(readWhole(piece));
  return text;
}

function readWhole(part: Uint8Array | TensorList): Uint8Array {
  if (part instanceof Uint8Array) return part;
  const bytes = part.read(0, part.byteSize);
  if (bytes.byteLength !== part.byteSize) throw shorter();
  return bytes;
}

function shorter(): Error {
  return new Error("the list of tensors is shorter than it was");
}

function sizeOf(part: Uint8Array | TensorList): number {
  return part instanceof Uint8Array ? part.byteLength : part.byteSize;
}

/**
 * Reads nothing before it is wanted. A list whose region is deleted meanwhile breaks the answer off, so that no client takes
 * a part of it for all.
 */
function* toSlices(pieces: readonly Piece[]): Generator<Uint8Array> {
  for (const piece of pieces) {
    const part = typeof piece === "string" ? Buffer.from(piece) : piece;
    if (part instanceof Uint8Array) {
      yield part;
      continue;
    }
    const { byteSize } = part;
    for (let done = 0; done < byteSize; ) {
      const slice = part.read(done, Math.min(limits.sliceBytes, byteSize - done));
      if (slice.byteLength === 0) throw shorter();
      yield slice;
      done += slice.byteLength;
    }
  }
}

/** As much as the peer takes, a slice in a turn of the event loop. */
function toStream(slices: Iterator<Uint8Array>): ReadableStream<Uint8Array> {
  const source = {
    async pull(controller: ReadableStreamDefaultController<Uint8Array>) {
      await setImmediate();
      const { value, done } = slices.next();
      if (done) controller.close();
      else controller.enqueue(value);
    },
  };
  return new ReadableStream(source, { highWaterMark: 0 });
}
