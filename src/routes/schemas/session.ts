/** The zod schemas of what is answered about sessions, claims and leases by request. */

import { z } from "@hono/zod-openapi";
import { byteCount, createdBy, nextCursor, SessionId, time } from "./common.ts";
import { ClientDescriptor, RegionDetail } from "./region.ts";

export const Session = z
  .object({
    id: SessionId,
    name: z.string().nullable(),
    client: z.union([ClientDescriptor, z.null()]),
    quota_bytes: byteCount.nullable(),
    used_bytes: byteCount.openapi({ description: "What it owns or builds; what drains is not among it." }),
    regions: z.int(),
    ttl_ms: z.int(),
    held: z.boolean().openapi({ description: "Whether a hold socket is open; no TTL runs then." }),
    expires_at: time.nullable().openapi({ description: "null while it is held." }),
    created_at: time,
    created_by: createdBy,
  })
  .openapi("Session", { description: "One worker's stay: what it owns ends with it." });

export const SessionList = z.object({ items: z.array(Session), next_cursor: nextCursor }).openapi("SessionList");

export const SessionEnd = z
  .object({ state: z.enum(["deleted", "draining"]), freed_bytes: byteCount, regions: z.int() })
  .openapi("SessionEnd", {
    description: "What ended with it. Sealed regions that are still mapped go with their last mapping.",
  });

export const Claim = z
  .object({
    role: z.enum(["builder", "reader"]).openapi({ description: "Closed: either `claim` is yours, or it is not." }),
    claim: z.string().nullable().openapi({ description: "For the builder: pass it to POST /v1/regions." }),
    region: z.union([RegionDetail, z.null()]).openapi({
      description: "For a reader: the sealed region. null, or not sealed: somebody still builds; ask again.",
    }),
  })
  // Not "Claim": a generator would call its variable like the field.
  .openapi("ClaimAnswer");

export const Lease = z
  .object({
    id: z.string().openapi({ example: "lea_abcdefghijklmnopqrstuvwxyz" }),
    region: z.string(),
    session: SessionId.nullable(),
    ttl_ms: z.int(),
    expires_at: time,
  })
  .openapi("Lease", { description: "Keeps a region from being freed, for those who cannot hold a kernel lock." });

export const LeaseList = z.object({ items: z.array(Lease), next_cursor: nextCursor }).openapi("LeaseList");

export const Ended = z.object({ state: z.enum(["deleted"]) }).openapi("Ended");
