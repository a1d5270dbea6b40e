/** Reads a body of JSON before any route does: how large it may be, its content type, and its bounds. Data is not read here. */

import type { Context, MiddlewareHandler } from "hono";
import { HTTPException } from "hono/http-exception";
import { TensordError } from "../memory/error.ts";
import { checkJsonBounds } from "../memory/layout/json-bounds.ts";
import { limits } from "../memory/limits.ts";
import type { Store } from "../memory/state/store.ts";
import { refuseEncoded } from "./content-encoding.ts";
import { dataPath } from "./data.ts";
import type { Environment, Services } from "./environment.ts";
import type { FindOperation } from "./find-operation.ts";
import { unsupportedMediaType } from "./problem.ts";
import { toValidationFailure } from "./validation-failure.ts";

/** @throws TensordError `payload-too-large`, `unsupported-media-type`, `validation-failed`; HTTPException of what is no UTF-8. */
export function readBody(findOperation: FindOperation, { store, traffic }: Services): MiddlewareHandler<Environment> {
  return async function readBody(c, next) {
    if (c.req.method === "GET" || c.req.method === "HEAD") return next();
    // What is refused whatever its body says is refused at once.
    const operation = findOperation(c);
    if (operation === undefined) return next();
    if (c.req.method === "PUT" && dataPath.test(c.req.path)) return next();
    const { body } = c.req.raw;
    if (body === null) return next();
    refuseEncoded(c.req.header("content-encoding"));
    const isCreation = operation.operationId === "createRegion";
    const maximum = isCreation ? limits.createBodyBytes : limits.requestBodyBytes;
    const parts = await readInTime(c, body, maximum);
    const byteSize = sizeOf(parts);
    traffic.receivedBytes += byteSize;
    if (byteSize > 0 && !isJson(c.req.header("content-type"))) throw unsupportedMediaType();
    const isLarge = isCreation && byteSize > limits.inlineBodyBytes;
    const text = isLarge ? await readLarge(c, store, parts) : decode(Buffer.concat(parts));
    // What reads the body from here on, `requireBody` and the validator, finds it decoded.
    (c.req.bodyCache as { text?: unknown }).text = Promise.resolve(text);
    checkJsonBounds(text);
    await next();
  };
}

/** The whole body, unless the transport needs the connection for others before it has come. */
async function readInTime(
  c: Context<Environment>,
  body: ReadableStream<Uint8Array>,
  maximum: number,
): Promise<readonly Uint8Array[]> {
  const { promise, reject } = Promise.withResolvers<never>();
  using _ = c.env?.reading?.((failure) => {
    c.header("Connection", "close");
    reject(failure);
  });
  return await Promise.race([readAll(c, body, maximum), promise]);
}

/** Leaves a creation's tensors to a Worker: neither they nor their text are read here. @returns what else the body says. */
async function readLarge(c: Context<Environment>, store: Store, parts: readonly Uint8Array[]): Promise<string> {
  const { rest, tensors, issues, issueCount } = await store.layouts.readBody(parts);
  if (issueCount > 0) throw toValidationFailure(issues, issueCount);
  c.set("tensors", tensors);
  return rest;
}

/**
 * The whole body, in parts as they came: what is large is never put together on the event loop.
 * @throws TensordError `payload-too-large` as soon as that is known, with the rest left unread.
 */
async function readAll(
  c: Context<Environment>,
  body: ReadableStream<Uint8Array>,
  maximum: number,
): Promise<readonly Uint8Array[]> {
  const length = c.req.header("content-length");
  if (length !== undefined && c.req.header("transfer-encoding") === undefined) {
    checkSize(Number(length), maximum);
    // The transport holds the sender to what it said.
    if (Number(length) <= limits.inlineBodyBytes) return [new Uint8Array(await c.req.arrayBuffer())];
  }
  const reader = body.getReader();
  try {
    const parts: Uint8Array[] = [];
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

function sizeOf(parts: readonly Uint8Array[]): number {
  return parts.reduce((sum, { byteLength }) => sum + byteLength, 0);
}

function checkSize(byteSize: number, maximum: number): void {
  if (byteSize <= maximum) return;
  throw new TensordError("payload-too-large", `Cannot read the body: want at most ${maximum} bytes`, {
    hint: "Tensor bytes are written to the mapping, never sent; many tensors can be split into several regions.",
  });
}

const utf8 = new TextDecoder("utf-8", { fatal: true });

function decode(bytes: Uint8Array): string {
  try {
    return utf8.decode(bytes);
  } catch (cause) {
    throw new HTTPException(400, { cause });
  }
}

function isJson(contentType: string | undefined): boolean {
  return /^application\/([a-z.-]+\+)?json\s*(;|$)/i.test(contentType ?? "");
}
