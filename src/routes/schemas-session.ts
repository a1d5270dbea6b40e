/** The zod schemas of sessions, claims and leases by request. */

import { z } from "@hono/zod-openapi";
import { limits } from "../memory/limits.ts";
import { byteCount, Client, Labels, nextCursor, RegionDetail, time, Version } from "./schemas.ts";

const text = z.string().max(limits.clientCharacters);
export const SessionId = z.string().max(64).openapi({ example: "ses_abcdefghijklmnopqrstuvwxyz" });
const Ttl = z.int().min(limits.sessionTtlMinMs).max(limits.sessionTtlMaxMs);

export const ClientRequest = z
  .strictObject({
    name: text.optional(),
    pid: z
      .int()
      .min(1)
      .max(2 ** 31)
      .optional(),
    hostname: text.optional(),
    version: text.optional(),
    labels: Labels.optional(),
  })
  .openapi("ClientRequest", { example: { name: "gunicorn worker", pid: 4711 } });

export const Session = z
  .object({
    id: SessionId,
    name: z.union([z.string(), z.null()]),
    client: z.union([Client, z.null()]),
    quota_bytes: z.union([byteCount, z.null()]),
    used_bytes: byteCount.openapi({ description: "What it owns or builds; what drains is not among it." }),
    regions: z.int(),
    ttl_ms: z.int(),
    held: z.boolean().openapi({ description: "Whether a hold socket is open; no TTL runs then." }),
    expires_at: z.union([time, z.null()]).openapi({ description: "null while it is held." }),
    created_at: time,
  })
  .openapi("Session", { description: "One worker's stay: what it owns ends with it." });
export const SessionList = z.object({ items: z.array(Session), next_cursor: nextCursor }).openapi("SessionList");

export const OpenSession = z
  .strictObject({
    name: text.optional(),
    client: ClientRequest.optional(),
    quota_bytes: byteCount
      .optional()
      .openapi({ description: "What it may own at once. Default: no bound of its own." }),
    ttl_ms: Ttl.optional().openapi({
      description: `It ends this long after its last renewal, unless it is held. Default ${limits.sessionTtlDefaultMs}.`,
    }),
  })
  .openapi("OpenSession", { example: { client: { name: "trainer", pid: 4711 }, ttl_ms: 30_000 } });

export const SessionEnd = z
  .object({ state: z.enum(["deleted", "draining"]), freed_bytes: byteCount, regions: z.int() })
  .openapi("SessionEnd", {
    description: "What ended with it. Sealed regions that are still mapped go with their last mapping.",
  });

export const ClaimRequest = z
  .strictObject({
    session: SessionId,
    version: Version.optional().openapi({
      description: "Which build. Without one whichever there is, and the empty one is built if there is none.",
    }),
    key: z.string().min(1).max(128).optional().openapi({
      description:
        "What you call this request. Asking again with the same key gets the same claim, should an answer be lost.",
    }),
  })
  .openapi("ClaimRequest", { example: { session: "ses_abcdefghijklmnopqrstuvwxyz", key: "1f2e3d" } });

export const Claim = z
  .object({
    role: z.enum(["builder", "reader"]),
    claim: z.union([z.string(), z.null()]).openapi({ description: "For the builder: pass it to POST /v1/regions." }),
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
    session: z.union([SessionId, z.null()]),
    ttl_ms: z.int(),
    expires_at: time,
  })
  .openapi("Lease", { description: "Keeps a region from being freed, for those who cannot hold a kernel lock." });
export const LeaseList = z.object({ items: z.array(Lease), next_cursor: nextCursor }).openapi("LeaseList");

export const TakeLease = z
  .strictObject({
    ttl_ms: Ttl,
    session: SessionId.optional().openapi({ description: "It ends with this session, too." }),
  })
  .openapi("TakeLease", { example: { ttl_ms: 60_000 } });

export const Ended = z.object({ state: z.enum(["deleted"]) }).openapi("Ended");
