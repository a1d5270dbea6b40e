/** What a route with a required body passes first: an absent one would otherwise be read as an empty object. */

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
