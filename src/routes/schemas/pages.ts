/** The zod schemas of what is said and answered about the pages of a region. */

import { z } from "@hono/zod-openapi";
import { byteCount } from "./common.ts";

export const AdviseRegion = z
  .strictObject({
    advice: z.enum(["willneed", "dontneed"]).openapi({
      description:
        "`willneed`: the kernel reads the file ahead. `dontneed`: it lets go of its copy of it, as far as nobody maps that. Of memory, which is " +
        "the only copy of its bytes, it lets go of nothing.",
    }),
  })
  .openapi("AdviseRegion", { example: { advice: "dontneed" } });

const residentBytes = z.int().min(0).max(Number.MAX_SAFE_INTEGER).nullable().openapi({
  description: "null where the kernel does not tell the server, which neither owns the file nor may write to it.",
});

export const Residency = z
  .object({
    byte_size: byteCount.openapi({ description: "All that could be in memory." }),
    resident_bytes_before: residentBytes,
    resident_bytes_after: residentBytes,
  })
  .openapi("Residency", {
    description: "How many of the region's bytes were in memory, by pages, before the kernel was advised, and are now.",
  });

export const Flushed = z
  .object({
    durable: z.boolean().openapi({
      description:
        "Whether what was written is on a device that keeps it without power. Of memory it is false, and there was nothing to do.",
    }),
  })
  .openapi("Flushed");
