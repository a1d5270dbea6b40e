/** Leases by request that stand, by token and by region. */

import { OrderedIndex } from "./ordered-index.ts";
import type { Region } from "./region.ts";
import type { RequestedLease } from "./session.ts";

export class RequestedLeases {
  readonly #byToken = new Map<string, RequestedLease>();
  readonly #byRegion = new Map<Region, OrderedIndex<RequestedLease>>();
  #lastKey = 0;

  get size(): number {
    return this.#byToken.size;
  }

  all(): Iterable<RequestedLease> {
    return this.#byToken.values();
  }

  nextKey(): number {
    this.#lastKey += 1;
    return this.#lastKey;
  }

  get(token: string): RequestedLease | undefined {
    return this.#byToken.get(token);
  }

  /** Not to be changed. */
  of(region: Region): OrderedIndex<RequestedLease> {
    return this.#byRegion.get(region) ?? new OrderedIndex();
  }

  /** Its key must be above those of its region's leases before it. */
  add(lease: RequestedLease): void {
    this.#lastKey = Math.max(this.#lastKey, lease.key);
    this.#byToken.set(lease.token, lease);
    const leases = this.#byRegion.get(lease.region) ?? new OrderedIndex();
    leases.append(lease);
    this.#byRegion.set(lease.region, leases);
  }

  remove(lease: RequestedLease): void {
    this.#byToken.delete(lease.token);
    const leases = this.#byRegion.get(lease.region);
    leases?.remove(lease);
    if (leases?.size === 0) this.#byRegion.delete(lease.region);
  }
}
