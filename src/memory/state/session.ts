/** What a session, a claim and a lease by request are in the books: plain records. */

import type { SessionRecord } from "../journal/session-record.ts";
import { type SessionId, toSessionId } from "../naming.ts";
import type { Region } from "./region.ts";

/** One worker's stay. */
export interface Session extends SessionRecord {
  /** What its regions are charged. */
  usedBytes: number;
  /** Those that end with it, and are charged to it. */
  readonly regions: Set<Region>;
  /** When it ends unless it is renewed, in ms since the epoch; null while it is held. */
  expiresAt: number | null;
  /** Hold sockets that are open. */
  holds: number;
  /** What its client says it maps. */
  readonly attached: Set<Region>;
  /** What closes its hold sockets when it ends otherwise. */
  readonly closers: Set<() => void>;
  readonly claims: Set<Claim>;
  readonly leases: Set<RequestedLease>;
  /** Settles when everything of it is ended; null while it lives. */
  end: Promise<SessionEnd> | null;
}

export type SessionEndReason = "request" | "ttl" | "hold";

export interface SessionEnd {
  /** Regions that it ended; one that is sealed and still leased keeps its name until its last lease ends. */
  readonly regions: number;
  readonly freedBytes: number;
  readonly isDraining: boolean;
}

/** The right to build a name, which one of those who ask has. */
export interface Claim {
  readonly token: string;
  readonly model: string;
  readonly name: string;
  readonly version: string;
  readonly session: Session;
  /** What the client calls its request, so that a repeated one gets the same claim. */
  readonly key: string | null;
  /** The token of the sealed region that stands until the one that is built under this claim is sealed; null if none does. */
  readonly rebuilds: string | null;
  /** What is built under it, once that is begun. */
  built: Region | null;
}

/** A lease with a TTL, for those who cannot hold a kernel lock. */
export interface RequestedLease {
  /** Ascends with each that is taken, over restarts too: the order of lists. */
  readonly key: number;
  readonly token: string;
  readonly region: Region;
  readonly session: Session | null;
  readonly ttlMs: number;
  /** Whose it is: the name of a token, or null. */
  readonly createdBy: string | null;
  expiresAt: number;
}

export function idOfSession(session: Pick<SessionRecord, "token">): SessionId {
  return toSessionId(session.token);
}

/** How errors and logs call a session: its id, and its name or its client's. */
export function describeSession(session: SessionRecord): string {
  const { name = null, pid = null, namespacePid = null } = session.client ?? {};
  const shown = session.name ?? [name, describePid(pid, namespacePid)].filter((part) => part !== null).join(", ");
  return shown === "" ? idOfSession(session) : `${idOfSession(session)} (${shown})`;
}

/** How people are told of a client's process: a PID that is another process here is marked. */
export function describePid(pid: number | null, namespacePid: number | null): string | null {
  if (pid !== null) return `pid ${pid}`;
  return namespacePid === null ? null : `pid ${namespacePid} in another PID namespace`;
}
