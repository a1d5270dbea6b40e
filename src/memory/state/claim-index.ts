/** The claims that stand, by name. Who may have one is `claims.ts`'s. */

import type { Claim } from "./session.ts";

/** What may be claimed; a region without a name cannot. */
export interface ClaimedName {
  readonly model: string;
  readonly name: string | null;
  readonly version: string;
}

/** Claims by name: at most one for each version of a name. */
export class Claims {
  readonly #byName = new Map<string, Claim>();

  get size(): number {
    return this.#byName.size;
  }

  of({ model, name, version }: ClaimedName): Claim | undefined {
    return name === null ? undefined : this.#byName.get(`${model}/${name}/${version}`);
  }

  add(claim: Claim): void {
    this.#byName.set(`${claim.model}/${claim.name}/${claim.version}`, claim);
    claim.session.claims.add(claim);
  }

  remove(claim: Claim): void {
    if (this.of(claim) === claim) this.#byName.delete(`${claim.model}/${claim.name}/${claim.version}`);
    claim.session.claims.delete(claim);
  }
}
