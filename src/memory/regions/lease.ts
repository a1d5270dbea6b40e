/** Leases by request, with a TTL: for readers that cannot hold a kernel lock. They count like any other lease. */

import { TensordError } from "../error.ts";
import { describe } from "../journal/region-record.ts";
import { limits } from "../limits.ts";
import { createToken, parseId } from "../naming.ts";
import { quote } from "../state/books.ts";
import { nextState } from "../state/lifecycle.ts";
import type { Region } from "../state/region.ts";
import type { Lease, Session } from "../state/session.ts";
import type { Store } from "../state/store.ts";

/** @throws TensordError `region-draining`, `too-many-requests`, `out-of-shared-memory`. */
export function takeLease(store: Store, region: Region, session: Session | null, ttlMs: number): Lease {
  store.refuseIfStopping();
  nextState(region, "lease");
  if (store.leases.size >= limits.leases) {
    throw new TensordError("too-many-requests", `Cannot take a lease: ${limits.leases} stand, the most that may`, {
      hint: "End leases that are no longer needed. Who maps the region needs none.",
    });
  }
  const token = createToken();
  store.journal.insertLease({ token, region: region.token, session: session?.token ?? null, ttlMs });
  store.step("lease.journaled");
  store.books.touch(region, store.now());
  return enterLease(store, { token, region, session, ttlMs });
}

/** Enters a lease, whose TTL begins now. */
export function enterLease(store: Store, facts: Omit<Lease, "expiresAt">): Lease {
  const lease = { ...facts, expiresAt: 0 };
  store.leases.add(lease);
  lease.session?.leases.add(lease);
  lease.region.serverLeases += 1;
  renewLease(store, lease);
  return lease;
}

export function renewLease(store: Store, lease: Lease): void {
  lease.expiresAt = store.now() + lease.ttlMs;
  store.endingLeases.schedule(lease, lease.expiresAt);
}

/** Called when a lease's TTL may be over. */
export function expireLease(store: Store, lease: Lease): void {
  if (lease.expiresAt > store.now()) return store.endingLeases.schedule(lease, lease.expiresAt);
  try {
    releaseLease(store, lease);
  } catch (error) {
    store.warn(`Cannot end a lease of ${describe(lease.region)} yet`, error);
    store.endingLeases.schedule(lease, store.now() + limits.drainPollMaxMs);
  }
}

export function releaseLease(store: Store, lease: Lease): void {
  if (store.leases.get(lease.token) !== lease) return;
  store.journal.deleteLease(lease.token);
  store.step("lease.row-deleted");
  store.leases.remove(lease);
  lease.session?.leases.delete(lease);
  lease.region.serverLeases -= 1;
  store.endingLeases.cancel(lease);
}

/** @throws TensordError `lease-not-found`. */
export function findLease(store: Store, id: string): Lease {
  const lease = store.leases.get(parseId("lea_", id) ?? "");
  if (lease !== undefined) return lease;
  throw new TensordError("lease-not-found", `Cannot find lease ${quote(id)}: it has ended or never was`, {
    hint: "A lease ends when it is not renewed in time. Take another one, if the region still stands.",
  });
}
