/** The zod schemas of what is answered about models. */

import { z } from "@hono/zod-openapi";
import { byteCount, ModelName, nextCursor, time } from "./common.ts";

export const Pool = z
  .object({
    pool: z.string().openapi({ description: "`host`, or a device's UUID.", example: "host" }),
    limit_bytes: byteCount.nullable().openapi({ description: "What regions may take together; null without a limit." }),
    used_bytes: byteCount.openapi({ description: "Charged, the draining ones apart." }),
    draining_bytes: byteCount,
  })
  .openapi("Pool", { description: "A limit and its sums, of host memory or of the memory of one device." });

const facts = {
  name: ModelName,
  pools: z.array(Pool).openapi({ description: "What its regions take: `host` always, and each device they are on." }),
  regions: z.int(),
  revision: z.int(),
  created_at: time,
};

/** As events tell of it. */
export const ModelFacts = z.object(facts).openapi("ModelFacts");

export const Model = z
  .object({
    ...facts,
    workers: z.int().openapi({
      description:
        "Processes that use its regions, each counted once: those that map one, as their clients report, and those with a lease by request.",
    }),
  })
  .openapi("Model");

export const ModelList = z.object({ items: z.array(Model), next_cursor: nextCursor }).openapi("ModelList");
