/** How owners, ends, sessions and holders read in a cell of a table. Pure but for the clock. */

import { describePid } from "../../memory/state/session.ts";
import type { RegionDetail, RegionFacts, Session } from "./answers.ts";
import { toBytes, toSpan } from "./table.ts";

/** What decides the region's end, and whether it may go earlier to make room. */
export function toOwner(region: Pick<RegionFacts, "owner" | "session" | "expires_at" | "evictable">): string {
  const { owner, session, evictable } = region;
  const builder = session !== null && owner.kind !== "session" ? [`built by ${session}`] : [];
  return [toOwnerKind(region), ...builder, ...(evictable ? ["evictable"] : [])].join(", ");
}

function toOwnerKind({ owner, session, expires_at }: Pick<RegionFacts, "owner" | "session" | "expires_at">): string {
  switch (owner.kind) {
    case "persist":
      return "persist";
    case "linger":
      return `linger ${toSpan(owner.linger_ms ?? 0)}`;
    case "session":
      // A sealed region that is still mapped outlives its session.
      return session === null ? "session, over" : session;
    case "ttl": {
      const leftMs = Date.parse(expires_at ?? "") - Date.now();
      return leftMs > 0 ? `ttl, ${toSpan(leftMs)} left` : "ttl, over";
    }
    default:
      return owner.kind;
  }
}

/** When the region ends by itself. */
export function toEnd({ owner, session, expires_at }: Pick<RegionFacts, "owner" | "session" | "expires_at">): string {
  switch (owner.kind) {
    case "persist":
      return "never";
    case "linger":
      return `${toSpan(owner.linger_ms ?? 0)} after its last use`;
    case "session":
      return session === null ? "with its last mapping" : `with ${session}`;
    case "ttl":
      return toDue(expires_at);
    default:
      return expires_at === null ? "-" : toDue(expires_at);
  }
}

/** In whole seconds, rounded up, so that ten minutes are not at once nine. */
function toDue(expiresAt: string | null): string {
  const leftMs = Date.parse(expiresAt ?? "") - Date.now();
  return leftMs > 0 ? `in ${toSpan(1000 * Math.ceil(leftMs / 1000))}` : "is over";
}

type Client = Session["client"];

/** A session as its client calls itself, else by its id. */
export function toSessionName(id: string, name: string | null, client: Client): string {
  const parts = [name ?? client?.name ?? null, describePid(client?.pid ?? null, client?.namespace_pid ?? null)];
  return parts.filter((part) => part !== null).join(", ") || id;
}

/** Who maps the region, as far as clients report it, and whether the kernel knows of more. */
export function toHolders({ holders, unknown_holders, lease_barred, leases }: RegionDetail): readonly string[] {
  const known = holders.map(({ session, client, mappings, writable }) => {
    const times = mappings > 1 ? ` ${mappings} times` : "";
    return `${toSessionName(session, null, client)}${times}${writable ? ", writing" : ""}`;
  });
  const unknown = unknown_holders ? ["an unknown process"] : [];
  const barring = lease_barred ? ["a process that bars its leases"] : [];
  return [...known, ...unknown, ...barring, ...(leases > 0 ? [`${leases} by request`] : [])];
}

/** What keeps a draining region's bytes, or undefined if nothing does and they are about to go. */
export function toKeeping(region: RegionDetail): string | undefined {
  if (region.drain?.waits_for === "hard-link") return "a hard link to its file, outside";
  return toHolders(region).join("; ") || undefined;
}

export const sessionHead = ["SESSION", "CLIENT", "REGIONS", "USED", "QUOTA", "ENDS"];

export function toSessionRow(session: Session): string[] {
  const { id, name, client, regions, used_bytes, quota_bytes, held, expires_at } = session;
  const called = toSessionName("-", name, client);
  const quota = quota_bytes === null ? "none" : toBytes(quota_bytes);
  return [id, called, String(regions), toBytes(used_bytes), quota, held ? "held" : toDue(expires_at)];
}
