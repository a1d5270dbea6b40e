/**
 * What ends by itself, and is ending when the server dies: TTLs of regions, sessions and leases, and linger; and a life
 * that an attach makes longer.
 */

import { expect } from "bun:test";
import { leap, leapingClock } from "../harness/instance-clock.ts";
import { exists, readContent, writeContent } from "../harness/instance-content.ts";
import {
  claimToBuild,
  endLease,
  endSession,
  findSession,
  type Lease,
  listLeases,
  openSession,
  renewSession,
  takeLease,
} from "../harness/instance-sessions.ts";
import type { KillPoint } from "../harness/server.ts";
import { Refused, type Region, type ServerApi } from "../harness/server-api.ts";
import { until } from "../harness/server-wait.ts";
import { at, atInLong, deleting, hour, MiB, type Scenario } from "./scenario.ts";

/** The region lives long until the server that will die is told otherwise, so that it never dies while it starts. */
function ownerScenario(what: "TTL" | "linger", kills: readonly KillPoint[]): Scenario {
  return {
    claim: `the end of a region by its ${what}`,
    kills,
    env: leapingClock,
    prepare: async (api) => {
      const owner = what === "TTL" ? { ttl_ms: hour } : { linger_ms: hour };
      const region = await api.create({ name: "new", byte_size: 50_000, ...owner });
      await api.seal(region.id);
      return {
        act: async (server) => {
          const soon = what === "TTL" ? { ttl_ms: 20 } : { linger_ms: 20 };
          await server.api.call("PATCH", `/v1/regions/${region.id}`, soon);
          // Who was handed it could map it for a while yet.
          if (what === "linger") leap(server);
        },
        check: async () => {
          await api.untilGone(region.id);
          expect(exists(region.storage.path)).toBeFalse();
          const next = await api.create({ name: "new", byte_size: 1, ttl_ms: hour });
          expect((await api.delete(next.id)).state).toBe("deleted");
        },
      };
    },
  };
}

/** Short enough to wait for it twice. */
const sessionTtlMs = 3000;

async function fillSession(api: ServerApi, read: Region): Promise<{ id: string; regions: Region[] }> {
  const { id } = await openSession(api, { ttl_ms: sessionTtlMs });
  const inTime = async <Result>(asked: Promise<Result>): Promise<Result> => {
    const result = await asked;
    await renewSession(api, id);
    return result;
  };
  const building = await inTime(claimToBuild(api, "built", id, "built"));
  await inTime(claimToBuild(api, "wanted", id, "wanted"));
  const regions = [
    await inTime(api.create({ name: "new", byte_size: 50_000, session: id })),
    await inTime(api.create({ byte_size: 2 * MiB, session: id })),
    await inTime(api.create({ name: "built", byte_size: 20_000, linger_ms: hour, claim: building })),
  ];
  await inTime(takeLease(api, read.id, id));
  return { id, regions };
}

/** On a machine so busy that a single request takes longer than the session lives, all of it again. */
async function fillSessionInTime(api: ServerApi, read: Region): ReturnType<typeof fillSession> {
  for (;;) {
    try {
      return await fillSession(api, read);
    } catch (error) {
      if (!(error instanceof Refused && error.problem.code === "session-not-found")) throw error;
    }
  }
}

const sessionTtl: Scenario = {
  claim: "the end of a session by its TTL",
  kills: [
    ...at("session.end-begun", "session.region-ended", "session.row-deleted"),
    ...atInLong("claim.row-deleted", "lease.row-deleted", "delete.journaled"),
  ],
  prepare: async (api) => {
    const read = await api.create({ name: "read", byte_size: 5000, persist: true });
    await api.seal(read.id);
    const { id, regions } = await fillSessionInTime(api, read);
    return {
      // Nobody renews it from here on.
      act: async () => undefined,
      check: async (_, { step }) => {
        if (step === "session.row-deleted") expect(await findSession(api, id)).toBeUndefined();
        // Nobody renews it, so its TTL ends what is left.
        await until("the session has ended", async () => (await findSession(api, id)) === undefined);
        for (const region of regions) {
          await api.untilGone(region.id);
          expect(exists(region.storage.path)).toBeFalse();
        }
        expect(await listLeases(api, read.id)).toEqual([]);
        expect((await api.delete(read.id)).state).toBe("deleted");
        const next = await openSession(api);
        for (const name of ["built", "wanted"]) await claimToBuild(api, name, next.id);
        await endSession(api, next.id);
      },
    };
  },
};

/**
 * A region of a session that has ended waits for the lease, and goes with it. It does so at the start, too, if it was
 * changed meanwhile and the clock is set back: by its owner, not by the hour.
 */
const leaseTtl: Scenario = {
  claim: "the end of a lease by its TTL",
  // Of the second: the first one keeps the region until it has changed.
  kills: [{ step: "lease.row-deleted", count: 2 }],
  env: leapingClock,
  prepare: async (api) => {
    const session = await openSession(api);
    const owned = await api.create({ byte_size: 10_000, session: session.id });
    const kept = await api.create({ name: "new", byte_size: 20_000, persist: true });
    writeContent(kept, 4);
    for (const { id } of [owned, kept]) await api.seal(id);
    const content = readContent(kept.storage.path);
    const waiting = await takeLease(api, kept.id);
    return {
      act: async (server) => {
        leap(server);
        const path = `/v1/regions/${owned.id}/leases`;
        const first = await takeLease(server.api, owned.id);
        await endSession(server.api, session.id);
        expect(await server.api.get(owned.id)).toMatchObject({ state: "sealed", in_use: true });
        await server.api.call("PATCH", `/v1/regions/${owned.id}`, { labels: { a: "1" } });
        await server.api.call<Lease>("POST", path, { ttl_ms: 1000 });
        await endLease(server.api, first.id);
      },
      check: async () => {
        await api.untilGone(owned.id);
        expect(exists(owned.storage.path)).toBeFalse();
        expect((await listLeases(api, kept.id)).map(({ id }) => id)).toEqual([waiting.id]);
        expect(readContent(kept.storage.path)).toEqual(content);
        expect((await api.delete(kept.id)).state).toBe("draining");
        await api.call("DELETE", `/v1/leases/${waiting.id}`);
        await api.untilGone(kept.id);
      },
    };
  },
};

function attachScenario(what: "TTL" | "linger"): Scenario {
  const owner = (ms: number) => (what === "TTL" ? { ttl_ms: ms } : { linger_ms: ms });
  return {
    claim: `an attach that asks for a longer ${what}`,
    kills: at("attach.journaled"),
    prepare: async (api) => {
      const request = { name: "new", byte_size: 10_000 };
      const region = await api.create({ ...request, ...owner(hour) });
      writeContent(region, 5);
      const content = readContent(region.storage.path);
      return {
        act: (server) => server.api.create({ ...request, ...owner(2 * hour), if_exists: "attach" }),
        check: async () => {
          const now = await api.get(region.id);
          expect(now.owner).toMatchObject(owner(2 * hour));
          expect(now).toMatchObject({ state: "open", name: "new", revision: region.revision + 1 });
          if (what === "TTL") {
            const longerMs = Date.parse(now.expires_at ?? "") - Date.parse(region.expires_at ?? "");
            expect(longerMs, "it lives an hour longer, and the time until it was asked").toBeWithin(
              hour,
              hour + 120_000,
            );
          }
          expect(readContent(region.storage.path)).toEqual(content);
          expect((await api.delete(region.id)).state).toBe("deleted");
        },
      };
    },
  };
}

export const timeScenarios: readonly Scenario[] = [
  ownerScenario("TTL", deleting),
  ownerScenario("linger", [
    ...at("delete.journaled", "delete.keeper-unlinked"),
    ...atInLong("delete.withdrawn", "delete.asked", "delete.row-deleted"),
  ]),
  sessionTtl,
  leaseTtl,
  attachScenario("TTL"),
  attachScenario("linger"),
];
