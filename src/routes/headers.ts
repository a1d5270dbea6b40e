/** The request header by which a client says what it waits for, and what for: `Prefer` (RFC 7240). */

import { z } from "@hono/zod-openapi";
import { limits } from "../memory/limits.ts";

export const PreferHeader = z.object({
  prefer: z
    .string()
    .optional()
    .openapi({
      description:
        `wait=N waits up to N seconds (at most ${limits.waitSeconds}). \`attach\`, where a region is asked for by name: ` +
        "you are about to map it. Without it you only look, and a hand-off goes on waiting for its consumer.",
      example: "wait=30",
    }),
});

/** The wait in ms that the client prefers, 0 without one. What cannot be read is ignored, as RFC 7240 wants. */
export function parseWaitMs(prefer: string | undefined): number {
  const match = /(?:^|[,;])\s*wait\s*=\s*"?(\d{1,9})"?\s*(?=[,;]|$)/i.exec(prefer ?? "");
  return Math.min(Number(match?.[1] ?? 0), limits.waitSeconds) * 1000;
}

/** Whether the client is about to map what it asks for. */
export function parseIsFetch(prefer: string | undefined): boolean {
  return /(?:^|[,;])\s*attach\s*(?=[,;]|$)/i.test(prefer ?? "");
}
