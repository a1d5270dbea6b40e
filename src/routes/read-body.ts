/** Reads a body of JSON before any route does: how large it may be, its content type, and its bounds. Data is not read here. */

import type { RouteConfig } from "@hono/zod-openapi";
import { peek } from "bun";
import type { Context } from "hono";
import { HTTPException } from "hono/http-exception";
import { TensordError } from "../memory/error.ts";
import { checkJsonBounds } from "../memory/layout/json-bounds.ts";
import { limits } from "../memory/limits.ts";
import type { Store } from "../memory/state/store.ts";
import { refuseEncoded } from "./content-encoding.ts";
import { dataPath } from "./data.ts";
import type { Environment, Services } from "./environment.ts";
import { unsupportedMediaType } from "./problem.ts";
import { toValidationFailure } from "./validation-failure.ts";

type Parts = readonly Uint8Array[];

/** Whether there is a body to be read here. What is refused whatever its body says is refused at once, and data is not read here. */
export function mayHaveBody(c: Context<Environment>, operation: RouteConfig | undefined): boolean {
  const { method } = c.req;
  if (method === "GET" || method === "HEAD" || operation === undefined) return false;
  return method !== "PUT" || !dataPath.test(c.req.path);
}

/**
 * Leaves the body's text to the handler. Only of a request that `mayHaveBody`.
 * @throws TensordError `payload-too-large`, `unsupported-media-type`, `validation-failed`; HTTPException of what is no UTF-8.
 */
export async function readBody(
  c: Context<Environment>,
  operation: RouteConfig | undefined,
  { store, traffic }: Services,
): Promise<void> {
  const length = toShortLength(c);
  // Where the length says it all, the runtime need not make a stream.
  if (length === undefined && c.req.raw.body === null) return;
  refuseEncoded(c.req.header("content-encoding"));
  const isCreation = operation?.operationId === "createRegion";
  const maximum = isCreation ? limits.createBodyBytes : limits.requestBodyBytes;
  const parts =
    length === undefined
      ? await readInTime(c, readAll(c, maximum))
      : [new Uint8Array(await readInTime(c, c.req.raw.arrayBuffer()))];
  const byteSize = sizeOf(parts);
  traffic.receivedBytes += byteSize;
  if (byteSize > 0 && !isJson(c.req.header("content-type"))) throw unsupportedMediaType();
  const isLarge = isCreation && byteSize > limits.inlineBodyBytes;
  const text = isLarge ? await readLarge(c, store, parts) : decode(parts);
  checkJsonBounds(text);
  c.set("body", text);
}

/** The length that the sender has said, and that the transport holds it to, if there is a body and it is short. */
function toShortLength(c: Context<Environment>): number | undefined {
  const length = Number(c.req.header("content-length") ?? 0);
  if (length === 0 || length > limits.inlineBodyBytes) return undefined;
  return c.req.header("transfer-encoding") === undefined ? length : undefined;
}

/** The whole body, unless the transport needs the connection for others before it has come. */
async function readInTime<Body>(c: Context<Environment>, body: Promise<Body>): Promise<Body> {
  if (peek.status(body) === "fulfilled") return body;
  const { promise, resolve, reject } = Promise.withResolvers<Body>();
  using _ = c.env?.reading?.((failure) => {
    c.header("Connection", "close");
    reject(failure);
  });
  // A race of the two would make three more promises.
  body.then(resolve, reject);
  return await promise;
}

/** Leaves a creation's tensors to a Worker: neither they nor their text are read here. @returns what else the body says. */
async function readLarge(c: Context<Environment>, store: Store, parts: Parts): Promise<string> {
  const { rest, tensors, issues, issueCount } = await store.layouts.readBody(parts);
  if (issueCount > 0) throw toValidationFailure(issues, issueCount);
  c.set("tensors", tensors);
  return rest;
}

/**
 * The whole body, in parts as they came: what is large is never put together on the event loop.
 * @throws TensordError `payload-too-large` as soon as that is known, with the rest left unread.
 */
async function readAll(c: Context<Environment>, maximum: number): Promise<Parts> {
  const length = c.req.header("content-length");
  if (length !== undefined && c.req.header("transfer-encoding") === undefined) checkSize(Number(length), maximum);
  const parts: Uint8Array[] = [];
  const reader = c.req.raw.body?.getReader();
  if (reader === undefined) return parts;
  try {
    for (let byteSize = 0; ; checkSize(byteSize, maximum)) {
      const { value } = await reader.read();
      if (value === undefined) return parts;
      parts.push(value);
      byteSize += value.length;
    }
  } finally {
    reader.releaseLock();
  }
}

function sizeOf(parts: Parts): number {
  return parts.reduce((sum, { byteLength }) => sum + byteLength, 0);
}

function checkSize(byteSize: number, maximum: number): void {
  if (byteSize <= maximum) return;
  throw new TensordError("payload-too-large", `Cannot read the body: want at most ${maximum} bytes`, {
    hint: "Tensor bytes are written to the mapping, never sent; many tensors can be split into several regions.",
  });
}

const utf8 = new TextDecoder("utf-8", { fatal: true });

function decode(parts: Parts): string {
  const [only, ...others] = parts;
  try {
    return utf8.decode(others.length === 0 ? only : Buffer.concat(parts));
  } catch (cause) {
    throw new HTTPException(400, { cause });
  }
}

function isJson(contentType: string | undefined): boolean {
  return /^application\/([a-z.-]+\+)?json(;\s*[a-z0-9-]+=[^;]+)*$/i.test(contentType ?? "");
}
