/** One client of `killed-at-random.test.ts`: one request at a time, at random, and a memory of what it was promised. */

import { expect } from "bun:test";
import { modes } from "../harness/instance-check.ts";
import { readContent, writeContent } from "../harness/instance-content.ts";
import type { Random } from "../harness/instance-random.ts";
import {
  type Claim,
  claim,
  endLease,
  endSession,
  type Lease,
  openSession,
  releaseClaim,
} from "../harness/instance-sessions.ts";
import { type NewRegion, NoAnswer, Refused, type Region, type ServerApi } from "../harness/server-api.ts";
import { day, type Evicted, type Known, type NameStand, type Party, Promises, type UnderWay } from "./random-party.ts";

const mostRegions = 6;
const mostSessions = 2;
const mostLeases = 3;
/** Names that all clients compete to build. */
const wanted = ["built-0", "built-1", "built-2"];
const isWanted = (name: string | null) => name !== null && wanted.includes(name);

export class Client extends Promises {
  readonly #name: string;
  readonly #random: Random;
  readonly #party: Party;
  readonly #leap: () => void;
  #lastMark = 0;

  /** @param leap makes the server's clock leap, so that what nobody uses may be evicted. */
  constructor(name: string, random: Random, party: Party, leap: () => void) {
    super();
    this.#name = name;
    this.#random = random;
    this.#party = party;
    this.#leap = leap;
    party.all.push(this);
  }

  /** Works until a request has no answer, which then stays under way. */
  async work(api: ServerApi): Promise<void> {
    for (;;) {
      try {
        await this.#pick()(api);
        if (this.underWay !== null) this.#party.count(this.underWay.kind);
        this.underWay = null;
      } catch (error) {
        if (error instanceof NoAnswer) return;
        if (!(error instanceof Refused)) throw error;
        if (error.problem.code !== "shutting-down" && !this.#isEvicted(error)) throw error;
        // An answer that says that nothing happened.
        this.underWay = null;
        if (error.problem.code === "shutting-down") return;
      }
    }
  }

  /** Whether the refusal says that the region is gone, which only an evictable one may be. */
  #isEvicted({ problem }: Refused): boolean {
    const { underWay } = this;
    if (underWay === null || !("one" in underWay)) return false;
    const { one } = underWay;
    if (problem.code !== "region-not-found" && problem.code !== "region-draining") return false;
    if (!one.region.evictable || one.region.state !== "sealed") return false;
    if (this.known.has(one.region.id)) this.#party.vanish(this, one);
    return true;
  }

  #mark(): string {
    this.#lastMark += 1;
    return `${this.#name}-${this.#lastMark}`;
  }

  #pick(): (api: ServerApi) => Promise<void> {
    const random = this.#random;
    const regions = [...this.known.values()];
    const open = regions.filter(({ region }) => region.state === "open");
    const free = regions.filter(({ region }) => !this.isLeased(region.id));
    // What a replacement or a deletion would take the name of is never leased, so nothing drains for long.
    const leasable = regions.filter(
      ({ region: { id, state, name } }) =>
        state === "sealed" && (name === null || isWanted(name)) && !this.outliving.has(id),
    );
    const sessions = [...this.sessions.keys()];
    const claims = [...this.claims.keys()];
    const leases = [...this.leases.keys()];
    const possible: [number, boolean, (api: ServerApi) => Promise<void>][] = [
      [4, regions.length < mostRegions, (api) => this.#create(api)],
      [4, open.length > 0, (api) => this.#seal(api, random.pick(open))],
      [3, regions.length > 0, (api) => this.#label(api, random.pick(regions))],
      [2, free.length > 0, (api) => this.#delete(api, random.pick(free))],
      [1, sessions.length < mostSessions, (api) => this.#openSession(api)],
      [0.4, sessions.length > 0, (api) => this.#endSession(api, random.pick(sessions))],
      [3, sessions.length > 0, (api) => this.#claim(api, random.pick(wanted), random.pick(sessions))],
      [1.5, claims.length > 0, (api) => this.#release(api, random.pick(claims))],
      [4, this.#buildable().length > 0, (api) => this.#build(api, random.pick(this.#buildable()))],
      [2, leasable.length > 0 && leases.length < mostLeases, (api) => this.#lease(api, random.pick(leasable))],
      [2, leases.length > 0, (api) => this.#endLease(api, random.pick(leases))],
      [1, true, (api) => this.#evict(api)],
    ];
    const choices = possible.filter(([, isPossible]) => isPossible);
    let left = random.fraction() * choices.reduce((sum, [weight]) => sum + weight, 0);
    for (const [weight, , action] of choices) {
      left -= weight;
      if (left < 0) return action;
    }
    return (api) => this.#evict(api);
  }

  /** Claimed names that it has no region of yet. */
  #buildable(): string[] {
    const names = new Set([...this.known.values()].map(({ region }) => region.name));
    return [...this.claims.keys()].filter((name) => !names.has(name));
  }

  #byteSize(): number {
    const random = this.#random;
    return random.isTrue(0.1) ? random.integer(2 ** 20, 2 * 2 ** 20) : random.integer(0, 40_000);
  }

  async #create(api: ServerApi): Promise<void> {
    const random = this.#random;
    const [session] = this.sessions.keys();
    const evictable = random.isTrue(0.6);
    if (random.isTrue(0.4)) {
      const name = `${this.#name}-${random.integer(0, 2)}`;
      await this.#make(api, { name, persist: true, if_exists: "replace" });
    } else if (session !== undefined && random.isTrue(0.6)) await this.#make(api, { session, evictable });
    else await this.#make(api, { ttl_ms: day, evictable });
  }

  async #build(api: ServerApi, name: string): Promise<void> {
    await this.#make(api, { name, linger_ms: day, claim: this.claims.get(name)?.id });
  }

  async #make(api: ServerApi, more: NewRegion): Promise<void> {
    const request = { ...more, byte_size: this.#byteSize(), labels: { asked: this.#mark() } };
    this.underWay = { kind: "create", request };
    const region = await api.create(request);
    writeContent(region, this.#random.integer(1, 1e6));
    this.known.set(region.id, { region, content: readContent(region.storage.path) });
  }

  async #seal(api: ServerApi, one: Known): Promise<void> {
    this.underWay = { kind: "seal", one };
    const region = await api.seal(one.region.id, { checksum: this.#random.isTrue(0.5) });
    this.settle(one, region);
  }

  async #label(api: ServerApi, one: Known): Promise<void> {
    const asked = String(this.#random.integer(0, 1e9));
    this.underWay = { kind: "label", one, asked };
    this.settle(one, await api.call<Region>("PATCH", `/v1/regions/${one.region.id}`, { labels: { value: asked } }));
  }

  async #delete(api: ServerApi, one: Known): Promise<void> {
    this.underWay = { kind: "delete", one };
    const { state } = await api.delete(one.region.id);
    // One that is being evicted says so.
    const mayBeEvicted = one.region.evictable && one.region.state === "sealed";
    expect(state, "nobody leases it").toBeOneOf(mayBeEvicted ? ["deleted", "draining"] : ["deleted"]);
    this.forget(one.region.id, "it was deleted");
  }

  async #openSession(api: ServerApi): Promise<void> {
    const name = this.#mark();
    this.underWay = { kind: "open-session", name };
    const session = await openSession(api, { name, ttl_ms: day, quota_bytes: 2 ** 30 });
    this.sessions.set(session.id, session);
  }

  async #endSession(api: ServerApi, session: string): Promise<void> {
    this.underWay = { kind: "end-session", session };
    await endSession(api, session);
    this.endSession(session);
  }

  async #claim(api: ServerApi, name: string, session: string): Promise<void> {
    // Who has the claim asks under its key, as one that lost the answer would.
    const held = this.claims.get(name);
    const request = { name, session: held?.session ?? session, key: held?.key ?? this.#mark() };
    const before = this.#party.standOf(name);
    this.underWay = { kind: "claim", ...request };
    this.settleClaim(request, await claim(api, name, request.session, request.key), before);
  }

  /** Holds an answer against what stood when it was asked for and stands still, so all the time between. */
  settleClaim(request: { name: string; session: string; key: string }, answer: Claim, before: NameStand): void {
    const { name } = request;
    const after = this.#party.standOf(name);
    const built = before.built === after.built ? before.built : undefined;
    const held = before.claim === after.claim ? before.claim : undefined;
    if (answer.claim !== null) {
      if (built !== undefined) this.#party.repeated.push(`${name} is built already as ${built}, and is claimed again`);
      if (held !== undefined && held !== answer.claim) this.#party.repeated.push(`${name} has two builders`);
      this.claims.set(name, { ...request, id: answer.claim });
      return;
    }
    if (this.claims.has(name)) this.#party.repeated.push(`the claim of ${name} is not known any more`);
    if (built === undefined) return;
    if (answer.region?.id !== built) this.#party.lost.push(`${name} is built as ${built}, and is not found`);
  }

  async #release(api: ServerApi, name: string): Promise<void> {
    const held = this.claims.get(name);
    if (held === undefined) return;
    this.underWay = { kind: "release", claim: held };
    await releaseClaim(api, name, held.id);
    this.claims.delete(name);
  }

  async #lease(api: ServerApi, one: Known): Promise<void> {
    // A region of a session is leased by nobody's session, so that what ends with one session never waits for another's.
    const [session = null] = one.region.session === null && this.#random.isTrue(0.5) ? this.sessions.keys() : [];
    this.underWay = { kind: "lease", one, session };
    const lease = await api.call<Lease>("POST", `/v1/regions/${one.region.id}/leases`, {
      ttl_ms: day,
      ...(session === null ? {} : { session }),
    });
    this.leases.set(lease.id, lease);
  }

  async #endLease(api: ServerApi, id: string): Promise<void> {
    const lease = this.leases.get(id);
    if (lease === undefined) return;
    this.underWay = { kind: "end-lease", lease };
    await endLease(api, id);
    this.forgetLease(lease);
  }

  async #evict(api: ServerApi): Promise<void> {
    const bytes = this.#random.integer(1, 60_000);
    this.underWay = { kind: "evict", bytes };
    this.#leap();
    const { evicted } = await api.call<{ evicted: Evicted[] }>("POST", "/v1/evict", { bytes });
    this.#party.evict(evicted, bytes);
  }

  /** The region as it is now known to be. */
  settle(one: Known, region: Region): void {
    const isSealed = region.state === "sealed";
    if (isSealed && one.region.state === "open") {
      const replaced = this.holderOf(one.region.pending_name);
      if (replaced !== undefined) this.forget(replaced.region.id, "it was replaced");
      if (region.name !== null) this.claims.delete(region.name);
    }
    one.region = region;
    one.content = { ...one.content, mode: isSealed ? modes.sealed : modes.open };
  }

  /** Which of the client's regions holds the name. */
  holderOf(name: string | null): Known | undefined {
    return name === null ? undefined : [...this.known.values()].find(({ region }) => region.name === name);
  }
}

export function isUnderWay<Kind extends UnderWay["kind"]>(
  { underWay }: Promises,
  kind: Kind,
): (UnderWay & { readonly kind: Kind }) | undefined {
  return underWay?.kind === kind ? (underWay as UnderWay & { readonly kind: Kind }) : undefined;
}
