/**
 * What the clients of `killed-at-random.test.ts` have in common: what each was promised, the names that they compete for,
 * evictions that take from any of them, and what of all this turned out to be broken.
 */

import type { Content } from "../harness/instance-content.ts";
import type { Lease, Session } from "../harness/instance-sessions.ts";
import type { NewRegion, Region } from "../harness/server-api.ts";

/** Longer than the clock of a server leaps in all. */
export const day = 24 * 3_600_000;

/** A region as its client knows it. */
export interface Known {
  region: Region;
  content: Content;
}

/** A claim as its builder knows it. */
export interface KnownClaim {
  readonly id: string;
  readonly name: string;
  readonly session: string;
  readonly key: string;
}

/** A request that has no answer yet; after a kill, one that never gets any. */
export type UnderWay =
  | { readonly kind: "create"; readonly request: NewRegion }
  | { readonly kind: "seal" | "delete"; readonly one: Known }
  | { readonly kind: "label"; readonly one: Known; readonly asked: string }
  | { readonly kind: "open-session"; readonly name: string }
  | { readonly kind: "end-session"; readonly session: string }
  | { readonly kind: "claim"; readonly name: string; readonly session: string; readonly key: string }
  | { readonly kind: "release"; readonly claim: KnownClaim }
  | { readonly kind: "lease"; readonly one: Known; readonly session: string | null }
  | { readonly kind: "end-lease"; readonly lease: Lease }
  | { readonly kind: "evict"; readonly bytes: number };

/** All that a client was promised, and what it asked for last. */
export class Promises {
  readonly known = new Map<string, Known>();
  readonly sessions = new Map<string, Session>();
  readonly claims = new Map<string, KnownClaim>();
  readonly leases = new Map<string, Lease>();
  /** Sealed regions whose session has ended while they were leased: they go with the last lease. */
  readonly outliving = new Set<string>();
  /** Ids of what is gone for good, or goes now, and why. */
  readonly gone = new Map<string, string>();
  underWay: UnderWay | null = null;

  isLeased(id: string): boolean {
    return [...this.leases.values()].some(({ region }) => region === id);
  }

  forget(id: string, why: string): void {
    if (this.known.delete(id)) this.gone.set(id, why);
    this.outliving.delete(id);
  }

  forgetLease({ id, region }: Lease): void {
    this.leases.delete(id);
    if (this.outliving.has(region) && !this.isLeased(region)) this.forget(region, "its session and its lease ended");
  }

  /** What ends with a session: claims, leases, regions that are not sealed and leased. */
  endSession(session: string): void {
    this.sessions.delete(session);
    for (const claim of [...this.claims.values()]) if (claim.session === session) this.claims.delete(claim.name);
    for (const lease of [...this.leases.values()]) if (lease.session === session) this.forgetLease(lease);
    for (const one of [...this.known.values()]) {
      const { region } = one;
      if (region.session !== session) continue;
      if (region.state === "sealed" && this.isLeased(region.id)) {
        this.outliving.add(region.id);
        one.region = { ...region, session: null };
      } else this.forget(region.id, "its session ended");
    }
  }

  /** Names of sealed regions that it built under a claim. */
  builtNames(): string[] {
    return [...this.known.values()].flatMap(({ region: { name, state, owner } }) =>
      name !== null && state === "sealed" && owner.kind === "linger" ? [name] : [],
    );
  }

  /** Whether the request under way may end the region, or have ended it. */
  mayEnd({ region }: Known): boolean {
    const { underWay } = this;
    return (
      (underWay?.kind === "delete" && underWay.one.region.id === region.id) ||
      (underWay?.kind === "end-session" && underWay.session === region.session)
    );
  }

  /** Whether the request under way may give the claim up, or have given it up. */
  mayRelease(claim: KnownClaim): boolean {
    const { underWay } = this;
    switch (underWay?.kind) {
      case "release":
        return underWay.claim.id === claim.id;
      case "end-session":
        return underWay.session === claim.session;
      case "seal":
        return underWay.one.region.name === claim.name;
      default:
        return false;
    }
  }
}

export interface Evicted {
  readonly region: string;
  readonly bytes: number;
}

/** Who may build a name, or what is built under it, as was promised to somebody and holds. */
export interface NameStand {
  readonly claim: string | undefined;
  readonly built: string | undefined;
}

export class Party {
  readonly all: Promises[] = [];
  /** Sentences, each of them a broken promise. */
  readonly orphans: string[] = [];
  readonly lost: string[] = [];
  readonly repeated: string[] = [];
  /** Evictable regions that their clients found gone, before anybody was told that they are evicted. */
  readonly vanished = new Map<string, number>();
  readonly acknowledged: Record<string, number> = {};
  answers = 0;
  evicted = 0;

  count(what: string): void {
    this.answers += 1;
    this.acknowledged[what] = (this.acknowledged[what] ?? 0) + 1;
  }

  /** Takes what was evicted away from those who had it, if it was allowed to go, and no more than `bytes` need. */
  evict(evicted: readonly Evicted[], bytes: number): void {
    const spare = sum(evicted.slice(0, -1).map((one) => one.bytes));
    if (evicted.length > 0 && spare >= bytes) {
      this.lost.push(
        `${evicted.map(({ region }) => region)} were evicted, and ${spare} bytes were enough for ${bytes}`,
      );
    }
    for (const one of evicted) this.#takeAway(one);
  }

  #takeAway({ region: id }: Evicted): void {
    this.evicted += 1;
    this.vanished.delete(id);
    const owner = this.all.find(({ known }) => known.has(id));
    const one = owner?.known.get(id);
    if (owner === undefined || one === undefined) return;
    const isSealing = owner.underWay?.kind === "seal" && owner.underWay.one === one;
    if (!one.region.evictable || (one.region.state !== "sealed" && !isSealing)) {
      this.lost.push(`${id} was evicted, and was no region to evict`);
    }
    if ([...owner.leases.values()].some((lease) => lease.region === id && !isEnding(owner, lease))) {
      this.lost.push(`${id} was evicted while it was leased`);
    }
    owner.forget(id, "it was evicted");
  }

  /** An evictable region is not there. Somebody evicts it, as must turn out. */
  vanish(owner: Promises, { region }: Known): void {
    this.vanished.set(region.id, chargeOf(region));
    owner.forget(region.id, "it was found gone");
  }

  /** After a kill: what vanished must be what an eviction without an answer takes, and no more than it needs. */
  settleVanished(): void {
    const asked = this.all.flatMap(({ underWay }) => (underWay?.kind === "evict" ? [underWay.bytes] : []));
    const charges = [...this.vanished.values()].toSorted((one, other) => other - one);
    // Each takes one region more than is enough, at most.
    const isExplained = charges.length === 0 || sum(charges.slice(asked.length)) < sum(asked);
    if (!isExplained) {
      this.lost.push(`evictions of ${asked} bytes do not explain that ${[...this.vanished.keys()]} are gone`);
    }
    this.vanished.clear();
  }

  /** What stands of a name that clients compete for, and nobody is about to end. */
  standOf(name: string): NameStand {
    let claim: string | undefined;
    let built: string | undefined;
    for (const promises of this.all) {
      const held = promises.claims.get(name);
      if (held !== undefined && !promises.mayRelease(held)) claim = held.id;
      for (const one of promises.known.values()) {
        if (one.region.name === name && one.region.state === "sealed" && !promises.mayEnd(one)) built = one.region.id;
      }
    }
    return { claim, built };
  }
}

function isEnding({ underWay }: Promises, lease: Lease): boolean {
  return (
    (underWay?.kind === "end-lease" && underWay.lease.id === lease.id) ||
    (underWay?.kind === "end-session" && underWay.session === lease.session)
  );
}

function chargeOf({ storage }: Region): number {
  return Math.ceil(storage.byte_size / storage.page_size) * storage.page_size;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
