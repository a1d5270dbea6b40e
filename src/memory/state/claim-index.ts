/** The claims that stand, by name. Who may have one is `claims.ts`'s. */

import type { Claim } from "./session.ts";

/** Claims by name: at most one a name. */
export class Claims {
  readonly #byName = new Map<string, Claim>();

  get size(): number {
    return this.#byName.size;
  }

  of(model: string, name: string): Claim | undefined {
    return this.#byName.get(`${model}/${name}`);
  }

  add(claim: Claim): void {
    this.#byName.set(`${claim.model}/${claim.name}`, claim);
    claim.session.claims.add(claim);
  }

  remove(claim: Claim): void {
    const key = `${claim.model}/${claim.name}`;
    if (this.#byName.get(key) === claim) this.#byName.delete(key);
    claim.session.claims.delete(claim);
  }
}
