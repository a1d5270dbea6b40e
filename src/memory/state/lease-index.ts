/** Leases by request that stand, by token and by region. */

import type { Region } from "./region.ts";
import type { Lease } from "./session.ts";

export class Leases {
  readonly #byToken = new Map<string, Lease>();
  readonly #byRegion = new Map<Region, Set<Lease>>();

  get size(): number {
    return this.#byToken.size;
  }

  get(token: string): Lease | undefined {
    return this.#byToken.get(token);
  }

  of(region: Region): ReadonlySet<Lease> {
    return this.#byRegion.get(region) ?? new Set();
  }

  add(lease: Lease): void {
    this.#byToken.set(lease.token, lease);
    const leases = this.#byRegion.get(lease.region) ?? new Set();
    this.#byRegion.set(lease.region, leases.add(lease));
  }

  remove(lease: Lease): void {
    this.#byToken.delete(lease.token);
    const leases = this.#byRegion.get(lease.region);
    leases?.delete(lease);
    if (leases?.size === 0) this.#byRegion.delete(lease.region);
  }
}
