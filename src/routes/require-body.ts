/** What a route with a body passes first, since an absent one is neither refused nor always taken where it is read. */

import type { Context, Next } from "hono";
import { TensordError } from "../memory/error.ts";
import type { Environment } from "./environment.ts";

/** @throws TensordError `malformed-body` if there is no body. */
export async function requireBody(c: Context<Environment>, next: Next): Promise<void> {
  if ((await c.req.text()) === "") {
    throw new TensordError("malformed-body", "Cannot read the body: it is empty", {
      hint: "Send one JSON object, in UTF-8.",
    });
  }
  await next();
}

/** Of a route whose body may be left out: then it is an empty object, whatever content type a client sends along. */
export async function allowNoBody(c: Context<Environment>, next: Next): Promise<void> {
  if ((await c.req.text()) === "") (c.req.bodyCache as { text?: unknown }).text = Promise.resolve("{}");
  await next();
}
