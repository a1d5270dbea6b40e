/** Leases by request that stand, by token and by region. */

import type { Region } from "./region.ts";
import type { RequestedLease } from "./session.ts";

export class RequestedLeases {
  readonly #byToken = new Map<string, RequestedLease>();
  readonly #byRegion = new Map<Region, Set<RequestedLease>>();

  get size(): number {
    return this.#byToken.size;
  }

  get(token: string): RequestedLease | undefined {
    return this.#byToken.get(token);
  }

  of(region: Region): ReadonlySet<RequestedLease> {
    return this.#byRegion.get(region) ?? new Set();
  }

  add(lease: RequestedLease): void {
    this.#byToken.set(lease.token, lease);
    const leases = this.#byRegion.get(lease.region) ?? new Set();
    this.#byRegion.set(lease.region, leases.add(lease));
  }

  remove(lease: RequestedLease): void {
    this.#byToken.delete(lease.token);
    const leases = this.#byRegion.get(lease.region);
    leases?.delete(lease);
    if (leases?.size === 0) this.#byRegion.delete(lease.region);
  }
}
