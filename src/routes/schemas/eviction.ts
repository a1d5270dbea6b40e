/** The zod schema of what an eviction by request answers. */

import { z } from "@hono/zod-openapi";
import type { KeptReason } from "../../memory/regions/evict.ts";
import { byteCount, time } from "./common.ts";
import { openWord } from "./words.ts";

const keptReasons: readonly KeptReason[] = ["leased", "handed-out", "not-needed"];

const EvictionItem = { region: z.string(), model: z.string(), name: z.string().nullable(), bytes: byteCount };

export const Eviction = z
  .object({
    dry_run: z.boolean(),
    enough: z.boolean().openapi({ description: "Whether the bytes that were asked for went." }),
    freed_bytes: byteCount,
    evicted: z.array(z.object({ ...EvictionItem, last_used_at: time }).openapi("Evicted")),
    kept: z
      .array(z.object({ ...EvictionItem, reason: openWord("Why it stays.", keptReasons) }).openapi("Kept"))
      .openapi({ description: "The first evictable regions that stay, and why." }),
  })
  .openapi("Eviction");
