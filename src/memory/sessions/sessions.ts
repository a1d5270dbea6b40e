/**
 * Sessions: opened, renewed, held, and ended with all that is theirs. A session ends by request, by its TTL, or at once
 * when the peer of its last hold is gone; what the server itself closes lets the TTL run.
 */

import { TensordError } from "../error.ts";
import type { ClientFacts, SessionRecord } from "../journal/session-record.ts";
import { limits } from "../limits.ts";
import { createToken } from "../naming.ts";
import { releaseClaim } from "../regions/claim.ts";
import { detachAll } from "../regions/consumers.ts";
import { endWithSession } from "../regions/expire.ts";
import { freeRegion } from "../regions/free.ts";
import { releaseRequestedLease } from "../regions/requested-lease.ts";
import type { Region } from "../state/region.ts";
import { describeSession, type Session, type SessionEnd, type SessionEndReason } from "../state/session.ts";
import type { Store } from "../state/store.ts";

export interface SessionRequest {
  readonly name: string | null;
  readonly client: ClientFacts | null;
  readonly quotaBytes: number | null;
  readonly ttlMs: number;
  readonly createdBy: string | null;
}

/** @throws TensordError `too-many-requests`, `out-of-shared-memory`, `shutting-down`. */
export function openSession(store: Store, request: SessionRequest): Session {
  store.refuseIfStopping();
  if (store.books.sessions.size >= limits.sessions) {
    throw new TensordError("too-many-requests", `Cannot open a session: ${limits.sessions} live, the most that may`, {
      hint: "Use one session in a process, and end those that are no longer needed.",
    });
  }
  const key = store.books.nextSessionKey();
  const record = { ...request, key, token: createToken(), createdAt: store.now() };
  store.journal.insertSession(record);
  store.step("session.journaled");
  const session = enterSession(store, record);
  store.emit({ type: "tensord.session.opened", session });
  return session;
}

/** Enters a session, whose TTL begins now. */
export function enterSession(store: Store, record: SessionRecord): Session {
  const session: Session = {
    ...record,
    expiresAt: null,
    holds: 0,
    usedBytes: 0,
    regions: new Set(),
    attached: new Set(),
    closers: new Set(),
    claims: new Set(),
    leases: new Set(),
    end: null,
  };
  store.books.addSession(session);
  renewSession(store, session);
  return session;
}

/** The TTL begins anew, unless the session is held: then none runs. */
export function renewSession(store: Store, session: Session): void {
  if (session.holds > 0) return;
  session.expiresAt = store.now() + session.ttlMs;
  store.endingSessions.schedule(session, session.expiresAt);
}

/** Called when a session's TTL may be over. */
export function expireSession(store: Store, session: Session): void {
  if (session.expiresAt === null || session.end !== null) return;
  if (session.expiresAt > store.now()) return store.endingSessions.schedule(session, session.expiresAt);
  void endSession(store, session, "ttl").catch((error) => warnOfEnd(store, session, error));
}

/**
 * Holds the session for a connection.
 * @returns what to call when the connection is gone: with `peer` if its other end closed or reset it, and with `server` if
 * we did, which is no sign that the worker is gone.
 */
export function holdSession(store: Store, session: Session): (closedBy: "peer" | "server") => void {
  session.holds += 1;
  session.expiresAt = null;
  store.endingSessions.cancel(session);
  let isHeld = true;
  return function release(closedBy) {
    if (!isHeld) return;
    isHeld = false;
    session.holds -= 1;
    if (session.holds > 0) return;
    // Also of one that has ended: its process may have gone on reporting.
    if (closedBy === "server") store.holders.forgetSession(session);
    else detachAll(store, session);
    if (session.end !== null) return;
    if (closedBy === "server") return renewSession(store, session);
    void endSession(store, session, "hold").catch((error) => warnOfEnd(store, session, error));
  };
}

function warnOfEnd(store: Store, session: Session, error: unknown): void {
  store.warn(`Cannot end ${describeSession(session)} yet`, error);
}

/**
 * Ends the session and all that is its own. Ending it twice is ending it once.
 * @param actor who asked, for events and logs.
 * @throws TensordError `out-of-shared-memory`. What could not be written is tried again in a while; until then the session
 * stays in the books with what is left of it.
 */
export async function endSession(
  store: Store,
  session: Session,
  reason: SessionEndReason,
  actor?: string,
): Promise<SessionEnd> {
  session.end ??= endAll(store, session, reason, actor);
  try {
    return await session.end;
  } catch (error) {
    session.end = null;
    session.expiresAt = store.now();
    store.endingSessions.schedule(session, session.expiresAt + limits.drainPollMaxMs);
    throw error;
  }
}

async function endAll(
  store: Store,
  session: Session,
  reason: SessionEndReason,
  actor: string | undefined,
): Promise<SessionEnd> {
  store.endingSessions.cancel(session);
  store.step("session.end-begun");
  detachAll(store, session);
  store.room.wakeSession(session);
  for (const close of session.closers) close();
  for (const claim of [...session.claims]) releaseClaim(store, claim);
  for (const lease of [...session.leases]) releaseRequestedLease(store, lease);
  store.elastic.endSession(session, actor);
  const regions = [...session.regions];
  // All of them leave the books before the first one's memory is freed, which takes long.
  const ended: Region[] = [];
  // One that fails does not keep the others: the session stays, and is tried again.
  const failures: unknown[] = [];
  try {
    for (const [index, region] of regions.entries()) {
      if (index % limits.sessionEndSlice === limits.sessionEndSlice - 1) await Bun.sleep(0);
      if (session.regions.has(region) && endWithSession(store, region, actor)) ended.push(region);
      store.step("session.region-ended");
    }
  } catch (error) {
    failures.push(error);
  }
  let freedBytes = 0;
  for (const region of ended) {
    try {
      freedBytes += (await freeRegion(store, region, actor)).freedBytes;
    } catch (error) {
      failures.push(error);
    }
    await Bun.sleep(0);
  }
  if (failures.length > 0) throw failures[0];
  // Last: a crash before this leaves a session that nobody renews, and its TTL ends the rest.
  store.journal.deleteSession(session.key);
  store.step("session.row-deleted");
  store.books.removeSession(session);
  store.emit({ type: "tensord.session.ended", session, reason, regions: regions.length, freedBytes });
  const isDraining = regions.some(({ state }) => state !== "deleted");
  return { regions: regions.length, freedBytes, isDraining };
}

/** One page of sessions in the order of their opening, after `cursor`. */
export function listSessions(store: Store, limit: number, cursor: number) {
  const items = [...store.books.sessions.after(cursor).take(limit)];
  const last = items.at(-1);
  return { items, nextCursor: items.length === limit && last !== undefined ? String(last.key) : null };
}
