/** Reads a body of JSON before any route does: how large it may be, its content type, and its bounds. Data is not read here. */

import type { MiddlewareHandler } from "hono";
import { bodyLimit } from "hono/body-limit";
import { HTTPException } from "hono/http-exception";
import { TensordError } from "../memory/error.ts";
import { limits } from "../memory/limits.ts";
import { dataPath } from "./data.ts";
import type { Environment, Traffic } from "./environment.ts";
import { checkJsonBounds } from "./json-bounds.ts";
import type { FindOperation } from "./operations.ts";
import { unsupportedMediaType } from "./problem.ts";

/** @throws TensordError `payload-too-large`, `unsupported-media-type`, `validation-failed`; HTTPException of what is no UTF-8. */
export function readBody(findOperation: FindOperation, traffic: Traffic): MiddlewareHandler<Environment> {
  const refuse = () => {
    throw new TensordError("payload-too-large", `Cannot read the body: want at most ${limits.requestBodyBytes} bytes`, {
      hint: "Tensor bytes are written to the mapping, never sent; many tensors can be split into several regions.",
    });
  };
  const limit = bodyLimit({ maxSize: limits.requestBodyBytes, onError: refuse });
  return async function readBody(c, next) {
    if (c.req.method === "GET" || c.req.method === "HEAD") return next();
    // What is refused whatever its body says is refused at once.
    if (findOperation(c) === undefined) return next();
    if (c.req.method === "PUT" && dataPath.test(c.req.path)) return next();
    return limit(c, async () => {
      const bytes = await c.req.arrayBuffer();
      traffic.receivedBytes += bytes.byteLength;
      const text = decode(bytes);
      // What reads the body from here on, `requireBody` and the validator, finds it decoded.
      (c.req.bodyCache as { text?: unknown }).text = Promise.resolve(text);
      if (text !== "" && !isJson(c.req.header("content-type"))) throw unsupportedMediaType();
      checkJsonBounds(text);
      await next();
    });
  };
}

const utf8 = new TextDecoder("utf-8", { fatal: true });

function decode(bytes: ArrayBuffer): string {
  try {
    return utf8.decode(bytes);
  } catch (cause) {
    throw new HTTPException(400, { cause });
  }
}

function isJson(contentType: string | undefined): boolean {
  return /^application\/([a-z.-]+\+)?json\s*(;|$)/i.test(contentType ?? "");
}
