/** The zod schemas of eviction by request. */

import { z } from "@hono/zod-openapi";
import { byteCount, ModelName, time } from "./schemas.ts";

export const EvictRequest = z
  .strictObject({
    bytes: byteCount.openapi({ description: "What is wanted free, beyond what is free now." }),
    model: ModelName.optional().openapi({ description: "Only this model's regions." }),
    dry_run: z.boolean().optional().openapi({ description: "Say what would go, and keep it." }),
  })
  .openapi("EvictRequest", { example: { bytes: 1_073_741_824, dry_run: true } });

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
