/** Leases by request, with a TTL: for readers that cannot hold a kernel lock. They count like any other lease. */

import { TensordError } from "../error.ts";
import { describe } from "../journal/region-record.ts";
import { limits } from "../limits.ts";
import { createToken, parseId, quote } from "../naming.ts";
import { nextState } from "../state/lifecycle.ts";
import type { Region } from "../state/region.ts";
import type { RequestedLease, Session } from "../state/session.ts";
import type { Store } from "../state/store.ts";

/** @throws TensordError `region-draining`, `too-many-requests`, `out-of-shared-memory`. */
export function requestLease(
  store: Store,
  region: Region,
  session: Session | null,
  ttlMs: number,
  createdBy: string | null,
): RequestedLease {
  store.refuseIfStopping();
  nextState(region, "lease");
  if (store.requestedLeases.size >= limits.leases) {
    throw new TensordError("too-many-requests", `Cannot take a lease: ${limits.leases} stand, the most that may`, {
      hint: "End leases that are no longer needed. Who maps the region needs none.",
    });
  }
  const token = createToken();
  const key = store.requestedLeases.nextKey();
  const row = { key, token, ttlMs, createdBy };
  store.journal.insertRequestedLease({ ...row, region: region.token, session: session?.token ?? null });
  store.step("lease.journaled");
  store.books.touch(region, store.now());
  return enterRequestedLease(store, { ...row, region, session });
}

/** Enters a lease, whose TTL begins now. */
export function enterRequestedLease(store: Store, facts: Omit<RequestedLease, "expiresAt">): RequestedLease {
  const lease = { ...facts, expiresAt: 0 };
  store.requestedLeases.add(lease);
  lease.session?.leases.add(lease);
  lease.region.serverLeases += 1;
  renewRequestedLease(store, lease);
  return lease;
}

/** One page of a region's leases in the order in which they were taken, after `cursor`. */
export function listRequestedLeases(store: Store, region: Region, limit: number, cursor: number) {
  const items = [...store.requestedLeases.of(region).after(cursor).take(limit)];
  const last = items.at(-1);
  return { items, nextCursor: items.length === limit && last !== undefined ? String(last.key) : null };
}

export function renewRequestedLease(store: Store, lease: RequestedLease): void {
  lease.expiresAt = store.now() + lease.ttlMs;
  store.endingRequestedLeases.schedule(lease, lease.expiresAt);
}

/** Called when a lease's TTL may be over. */
export function expireRequestedLease(store: Store, lease: RequestedLease): void {
  // As of the session itself: while that is held no TTL runs.
  if ((lease.session?.holds ?? 0) > 0) return renewRequestedLease(store, lease);
  if (lease.expiresAt > store.now()) return store.endingRequestedLeases.schedule(lease, lease.expiresAt);
  try {
    releaseRequestedLease(store, lease);
  } catch (error) {
    store.warn(`Cannot end a lease of ${describe(lease.region)} yet`, error);
    store.endingRequestedLeases.schedule(lease, store.now() + limits.drainPollMaxMs);
  }
}

export function releaseRequestedLease(store: Store, lease: RequestedLease): void {
  if (store.requestedLeases.get(lease.token) !== lease) return;
  store.journal.deleteRequestedLease(lease.token);
  store.step("lease.row-deleted");
  store.requestedLeases.remove(lease);
  lease.session?.leases.delete(lease);
  lease.region.serverLeases -= 1;
  store.endingRequestedLeases.cancel(lease);
}

/** @throws TensordError `lease-not-found`. */
export function findRequestedLease(store: Store, id: string): RequestedLease {
  const lease = store.requestedLeases.get(parseId("lea_", id) ?? "");
  if (lease !== undefined) return lease;
  throw leaseNotFound(id);
}

export function leaseNotFound(id: string): TensordError {
  return new TensordError("lease-not-found", `Cannot find lease ${quote(id)}: it has ended or never was`, {
    hint: "A lease ends when it is not renewed in time. Take another one, if the region still stands.",
  });
}
