/** What the contracts of routes are written with: answers and bodies of JSON, and the query's `limit`. */

import { z } from "@hono/zod-openapi";
import { limits } from "../memory/limits.ts";
import type { AnswerHeaders } from "./answer-headers.ts";

/** The query's `limit`: a string on the wire, an integer in the document. */
export const Limit = z
  .string()
  .regex(/^[1-9]\d{0,3}$/, `want 1 to ${limits.listItems}`)
  .refine((text) => Number(text) <= limits.listItems, `want 1 to ${limits.listItems}`)
  .optional()
  .openapi({ type: "integer", minimum: 1, maximum: limits.listItems, default: limits.listItemsDefault });

/** The query's `cursor` where it is the key of the last item. */
export const KeyCursor = z
  .string()
  .regex(/^\d{1,15}$/)
  .optional();

/** @param headers of `answer-headers.ts`. */
export function json<Schema extends z.ZodType>(description: string, schema: Schema, headers?: AnswerHeaders) {
  return { description, ...(headers && { headers }), content: { "application/json": { schema } } };
}

/** For a route of `defineBodyRoute`. */
export function body<Schema extends z.ZodType>(schema: Schema) {
  return { required: true, content: { "application/json": { schema } } } as const;
}

/** One that may be left out: then it is an empty object. */
export function optionalBody<Schema extends z.ZodType>(schema: Schema) {
  return { required: false, content: { "application/json": { schema } } } as const;
}
