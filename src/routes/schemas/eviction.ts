/** The zod schema of what an eviction by request answers. */

import { z } from "@hono/zod-openapi";
import { byteCount, time } from "./common.ts";

const EvictionItem = { region: z.string(), model: z.string(), name: z.string().nullable(), bytes: byteCount };

export const Eviction = z
  .object({
    dry_run: z.boolean(),
    enough: z.boolean().openapi({ description: "Whether the bytes that were asked for went." }),
    freed_bytes: byteCount,
    evicted: z.array(z.object({ ...EvictionItem, last_used_at: time }).openapi("Evicted")),
    kept: z
      .array(z.object({ ...EvictionItem, reason: z.enum(["leased", "handed-out", "not-needed"]) }).openapi("Kept"))
      .openapi({ description: "The first evictable regions that stay, and why." }),
  })
  .openapi("Eviction");
