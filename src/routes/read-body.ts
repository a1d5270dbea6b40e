/** Reads a body of JSON before any route does: how large it may be, its content type, and its bounds. Data is not read here. */

import type { Context, MiddlewareHandler } from "hono";
import { HTTPException } from "hono/http-exception";
import { TensordError } from "../memory/error.ts";
import { limits } from "../memory/limits.ts";
import { refuseEncoded } from "./content-encoding.ts";
import { dataPath } from "./data.ts";
import type { Environment, Traffic } from "./environment.ts";
import { checkJsonBounds } from "./json-bounds.ts";
import type { FindOperation } from "./operations.ts";
import { unsupportedMediaType } from "./problem.ts";

/** @throws TensordError `payload-too-large`, `unsupported-media-type`, `validation-failed`; HTTPException of what is no UTF-8. */
export function readBody(findOperation: FindOperation, traffic: Traffic): MiddlewareHandler<Environment> {
  return async function readBody(c, next) {
    if (c.req.method === "GET" || c.req.method === "HEAD") return next();
    // What is refused whatever its body says is refused at once.
    if (findOperation(c) === undefined) return next();
    if (c.req.method === "PUT" && dataPath.test(c.req.path)) return next();
    const { body } = c.req.raw;
    if (body === null) return next();
    refuseEncoded(c.req.header("content-encoding"));
    const bytes = await readInTime(c, body);
    traffic.receivedBytes += bytes.byteLength;
    const text = decode(bytes);
    // What reads the body from here on, `requireBody` and the validator, finds it decoded.
    (c.req.bodyCache as { text?: unknown }).text = Promise.resolve(text);
    if (text !== "" && !isJson(c.req.header("content-type"))) throw unsupportedMediaType();
    checkJsonBounds(text);
    await next();
  };
}

/** The whole body, unless the transport needs the connection for others before it has come. */
async function readInTime(
  c: Context<Environment>,
  body: ReadableStream<Uint8Array>,
): Promise<ArrayBuffer | Uint8Array> {
  const { promise, reject } = Promise.withResolvers<never>();
  using _ = c.env?.reading?.((failure) => {
    c.header("Connection", "close");
    reject(failure);
  });
  return await Promise.race([readAll(c, body), promise]);
}

/**
 * The whole body.
 * @throws TensordError `payload-too-large` as soon as that is known, with the rest left unread.
 */
async function readAll(c: Context<Environment>, body: ReadableStream<Uint8Array>): Promise<ArrayBuffer | Uint8Array> {
  const length = c.req.header("content-length");
  if (length !== undefined && c.req.header("transfer-encoding") === undefined) {
    checkSize(Number(length));
    // The transport holds the sender to what it said.
    return c.req.arrayBuffer();
  }
  const reader = body.getReader();
  try {
    const chunks: Uint8Array[] = [];
    for (let byteSize = 0; ; checkSize(byteSize)) {
      const { value } = await reader.read();
      if (value === undefined) return Buffer.concat(chunks);
      chunks.push(value);
      byteSize += value.length;
    }
  } finally {
    reader.releaseLock();
  }
}

function checkSize(byteSize: number): void {
  if (byteSize <= limits.requestBodyBytes) return;
  throw new TensordError("payload-too-large", `Cannot read the body: want at most ${limits.requestBodyBytes} bytes`, {
    hint: "Tensor bytes are written to the mapping, never sent; many tensors can be split into several regions.",
  });
}

const utf8 = new TextDecoder("utf-8", { fatal: true });

function decode(bytes: ArrayBuffer | Uint8Array): string {
  try {
    return utf8.decode(bytes);
  } catch (cause) {
    throw new HTTPException(400, { cause });
  }
}

function isJson(contentType: string | undefined): boolean {
  return /^application\/([a-z.-]+\+)?json\s*(;|$)/i.test(contentType ?? "");
}
