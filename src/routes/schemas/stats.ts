/** The zod schema of the server's books. */

import { z } from "@hono/zod-openapi";
import { byteCount } from "./common.ts";
import { Pool } from "./model.ts";

export const ServerPool = z
  .object({
    ...Pool.shape,
    available_bytes: byteCount.openapi({ description: "What may still be allocated, by the limit and what is free." }),
    reserve_bytes: byteCount.openapi({
      description:
        "Kept ready for regions to come (TENSORD_RESERVE_BYTES). It is among what is available, and given back before anything is refused.",
    }),
    unaccounted_bytes: z.int().nullable().openapi({
      description: "In use there, and not by this instance; null of a device, of which nobody tells.",
    }),
  })
  .openapi("ServerPool", { description: "A pool of the server's, beside what the machine says." });

export const Stats = z
  .object({
    instance: z.string(),
    version: z.string(),
    epoch: z.int().openapi({
      description: "The number of this start of the instance's server: each has a larger one than all before it.",
    }),
    pools: z.array(ServerPool),
    journal_bytes: byteCount.openapi({ description: "What the server's own database and ballast occupy." }),
    inodes: z.object({ used: z.int(), free: z.int() }),
    regions: z.object({
      creating: z.int(),
      open: z.int(),
      sealing: z.int(),
      sealed: z.int(),
      draining: z.int(),
    }),
    models: z.int(),
    sessions: z.int(),
    claims: z.int(),
    leases: z.int().openapi({ description: "Leases by request; kernel locks are not counted." }),
    http: z.object({
      requests: z.int(),
      received_bytes: z
        .int()
        .openapi({ description: "Request bodies. Tensor bytes are among them only by PUT …/data." }),
      sent_bytes: z.int().openapi({ description: "Response bodies." }),
    }),
  })
  .openapi("Stats");
