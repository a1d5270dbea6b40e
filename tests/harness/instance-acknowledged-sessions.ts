/**
 * A session, claims and leases that a server has acknowledged, with regions of every owner that has to do with them. A
 * crash changes none of it, but for the TTLs, which begin anew.
 */

import { expect } from "bun:test";
import { type Content, readContent, writeContent } from "./instance-content.ts";
import {
  claim,
  claimToBuild,
  endLease,
  endSession,
  findSession,
  type Lease,
  listLeases,
  openSession,
  type Session,
  takeLease,
} from "./instance-sessions.ts";
import type { TestServer } from "./server.ts";
import type { RegionDetail } from "./server-api.ts";

interface Promised {
  readonly session: Session;
  readonly other: Session;
  readonly regions: readonly RegionDetail[];
  readonly contents: readonly Content[];
  readonly leases: readonly Lease[];
  /** The claim of the name `waiting`, which nobody builds yet. */
  readonly claim: string;
}

export class AcknowledgedSessions {
  readonly #promised: Promised;

  private constructor(promised: Promised) {
    this.#promised = promised;
  }

  static async make({ api }: TestServer): Promise<AcknowledgedSessions> {
    const opened = await openSession(api, {
      name: "worker",
      client: { name: "test", pid: 4711, labels: { a: "1" } },
      quota_bytes: 2 ** 26,
    });
    const other = await openSession(api);
    const building = await claimToBuild(api, "building", opened.id, "first");
    const waiting = await claimToBuild(api, "waiting", opened.id, "second");
    const made = [
      await api.create({ name: "owned", byte_size: 30_000, session: opened.id, evictable: true }),
      await api.create({ byte_size: 20_000, session: opened.id }),
      await api.create({ name: "building", byte_size: 10_000, linger_ms: 3_600_000, claim: building }),
      await api.create({ name: "lingering", byte_size: 5000, linger_ms: 3_600_000 }),
    ] as const;
    for (const [seed, region] of made.entries()) writeContent(region, seed);
    const [owned, , , lingering] = made;
    await api.seal(owned.id, { checksum: true });
    await api.seal(lingering.id);
    const leases = [await takeLease(api, owned.id, other.id), await takeLease(api, owned.id)];
    const regions = await Promise.all(made.map(({ id }) => api.get(id)));
    const session = await api.call<Session>("GET", `/v1/sessions/${opened.id}`);
    const contents = regions.map(({ storage }) => readContent(storage.path));
    return new AcknowledgedSessions({ session, other, regions, contents, leases, claim: waiting });
  }

  get ids(): string[] {
    return this.#promised.regions.map(({ id }) => id);
  }

  async check({ api }: TestServer): Promise<void> {
    const { session, other, regions, contents, leases } = this.#promised;
    for (const one of [session, other]) {
      const now = await findSession(api, one.id);
      expect(now && toLasting(now), `${one.id} is as it was acknowledged`).toEqual(toLasting(one));
    }
    for (const [index, region] of regions.entries()) {
      expect(toLasting(await api.get(region.id)), `${region.id} is as it was acknowledged`).toEqual(toLasting(region));
      expect(readContent(region.storage.path)).toEqual(contents[index] as Content);
    }
    const now = await listLeases(api, regions[0]?.id ?? "");
    expect(now.map(toLasting).toSorted(byId)).toEqual(leases.map(toLasting).toSorted(byId));
    // Whoever asks again under its key is the builder still; nobody else is.
    expect(await claim(api, "waiting", session.id, "second")).toMatchObject({ claim: this.#promised.claim });
    expect(await claim(api, "waiting", other.id)).toMatchObject({ role: "reader", region: null });
  }

  /** How many would build `waiting` beside the one who was granted it. */
  async countOtherBuilders({ api }: TestServer): Promise<number> {
    const { session, other, claim: granted } = this.#promised;
    const again = await claim(api, "waiting", session.id, "second");
    const others = await claim(api, "waiting", other.id);
    return (again.claim === granted ? 0 : 1) + (others.role === "builder" ? 1 : 0);
  }

  /** Ends the sessions: what they own goes, and what a lease holds goes with that lease. */
  async release({ api }: TestServer): Promise<void> {
    const { session, other, regions, leases } = this.#promised;
    const [owned = "", nameless = "", building = "", lingering = ""] = regions.map(({ id }) => id);
    expect(await endSession(api, session.id)).toMatchObject({ state: "draining", regions: 3 });
    for (const id of [nameless, building]) expect(await api.find(id)).toBeUndefined();
    expect(await api.get(owned)).toMatchObject({ state: "sealed", name: "owned", in_use: true });
    await endSession(api, other.id);
    expect((await listLeases(api, owned)).map(({ id }) => id)).toEqual([leases[1]?.id ?? ""]);
    await endLease(api, leases[1]?.id ?? "");
    await api.untilGone(owned);
    expect((await api.delete(lingering)).state).toBe("deleted");
  }
}

function byId(one: Record<string, unknown>, other: Record<string, unknown>): number {
  return String(one.id) < String(other.id) ? -1 : 1;
}

/** Without what a restart changes: TTLs begin anew, and when somebody last asked is not kept. */
function toLasting(record: object): Record<string, unknown> {
  const { expires_at: _, last_used_at: __, ...lasting } = record as Record<string, unknown>;
  return lasting;
}
