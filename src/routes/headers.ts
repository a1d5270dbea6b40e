/** Request headers that several routes read: `Prefer: wait` (RFC 7240) and `If-Match` (RFC 9110). */

import { z } from "@hono/zod-openapi";
import { TensordError } from "../memory/error.ts";
import { limits } from "../memory/limits.ts";

export const PreferHeader = z.object({
  prefer: z
    .string()
    .optional()
    .openapi({
      description: `wait=N waits up to N seconds (at most ${limits.waitSeconds}).`,
      example: "wait=30",
    }),
});

export const IfMatchHeader = z.object({
  "if-match": z.string().optional().openapi({ description: "Change only this revision.", example: '"3"' }),
});

/** The wait in ms that the client prefers, 0 without one. What cannot be read is ignored, as RFC 7240 wants. */
export function parseWaitMs(prefer: string | undefined): number {
  const match = /(?:^|[,;])\s*wait\s*=\s*"?(\d{1,9})"?\s*(?=[,;]|$)/i.exec(prefer ?? "");
  return Math.min(Number(match?.[1] ?? 0), limits.waitSeconds) * 1000;
}

/** The revision that the client expects, or undefined if any will do. @throws TensordError `validation-failed`. */
export function parseIfMatch(value: string | undefined): number | undefined {
  if (value === undefined || value.trim() === "*") return undefined;
  const match = /^\s*"(\d{1,15})"\s*$/.exec(value);
  if (match !== null) return Number(match[1]);
  throw new TensordError(
    "validation-failed",
    `Cannot read If-Match: ${JSON.stringify(value.slice(0, 80))} is no revision`,
    {
      hint: 'Send the ETag of the answer before, such as "3", or leave the header out.',
    },
  );
}
