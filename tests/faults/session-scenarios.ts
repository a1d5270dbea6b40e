/** The opening of a session and every kind of its end in flight when the server dies. */

import { expect } from "bun:test";
import { exists, readContent, writeContent } from "../harness/instance-content.ts";
import { needsRoom } from "../harness/instance-needs.ts";
import {
  claimToBuild,
  endLease,
  endSession,
  findSession,
  holdSession,
  listLeases,
  listSessions,
  openSession,
  takeLease,
} from "../harness/instance-sessions.ts";
import type { KillPoint } from "../harness/server.ts";
import type { ServerApi } from "../harness/server-api.ts";
import { at, hour, MiB, type Scenario } from "./scenario.ts";

const opening: Scenario = {
  claim: "the opening of a session",
  kills: at("session.journaled"),
  prepare: async () => ({
    act: ({ api }) => openSession(api, { name: "new", quota_bytes: 100_000, ttl_ms: hour }),
    check: async (api) => {
      const found = (await listSessions(api)).filter(({ name }) => name === "new");
      expect(found, "it is there once, whole").toMatchObject([
        { quota_bytes: 100_000, ttl_ms: hour, used_bytes: 0, regions: 0, held: false },
      ]);
      const id = found[0]?.id ?? "";
      const region = await api.create({ byte_size: 10_000, session: id });
      const over = await api.problem("POST", "/v1/regions", { byte_size: 100_000, session: id });
      expect(over.code).toBe("session-quota-exceeded");
      await endSession(api, id);
      expect(await api.find(region.id)).toBeUndefined();
    },
  }),
};

/** What a session may have that ends with it: an open region, a sealed one, one that it builds, a claim, a lease. */
async function prepareSession(api: ServerApi, byteSize: number) {
  const session = await openSession(api);
  const building = await claimToBuild(api, "built", session.id, "built");
  await claimToBuild(api, "wanted", session.id, "wanted");
  const regions = [
    await api.create({ name: "new", byte_size: byteSize, session: session.id }),
    await api.create({ byte_size: 10_000, session: session.id }),
    await api.create({ name: "built", byte_size: 20_000, linger_ms: hour, claim: building }),
  ] as const;
  writeContent(regions[0], 1);
  await api.seal(regions[0].id, { checksum: true });
  const read = await api.create({ name: "read", byte_size: 5000, persist: true });
  await api.seal(read.id);
  await takeLease(api, read.id, session.id);
  return { session, regions, read };
}

/** A session that is there can be ended again, whatever of it is gone; in the end nothing of it is left. */
async function checkEnded(api: ServerApi, session: string, isGone: boolean): Promise<void> {
  const found = await findSession(api, session);
  expect(found === undefined, "the session is gone, or can be ended again").toBe(isGone);
  if (found !== undefined) await endSession(api, session);
  expect(await findSession(api, session)).toBeUndefined();
  // What drains still says whose it was, for those who follow the session's events.
  const standing = (await api.list()).filter(({ state }) => state !== "draining");
  for (const region of standing) expect(region.session).not.toBe(session);
}

function endScenario(what: string, byteSize: number, kills: readonly KillPoint[], needs?: string): Scenario {
  return {
    claim: `the end of ${what}`,
    kills,
    prepare: async (api) => {
      const { session, regions, read } = await prepareSession(api, byteSize);
      return {
        act: (server) => endSession(server.api, session.id),
        check: async (_, { step }) => {
          await checkEnded(api, session.id, step === "session.row-deleted");
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
    needs,
  };
}

/** The worker is gone: its socket closes, and the server dies of what follows. */
const endingByHold: Scenario = {
  claim: "the end of a session whose worker is gone",
  kills: at("session.end-begun", "delete.journaled", "session.region-ended", "session.row-deleted"),
  prepare: async (api) => {
    const { session, regions, read } = await prepareSession(api, 50_000);
    return {
      act: async (server) => {
        const socket = await holdSession(server, session.id);
        socket.close();
      },
      check: async (_, { step }) => {
        // Its TTL ends what is left; the test does not wait an hour for that.
        await checkEnded(api, session.id, step === "session.row-deleted");
        for (const region of regions) await api.untilGone(region.id);
        expect((await api.delete(read.id)).state).toBe("deleted");
      },
    };
  },
};

/** Readers map and lease what the session made: that stays, under its name, until the last of them lets go. */
const endingLeased: Scenario = {
  claim: "the end of a session whose regions others use",
  kills: [...at("session.region-ended"), { step: "session.region-ended", count: 2 }, ...at("session.row-deleted")],
  prepare: async (api, worker) => {
    const session = await openSession(api);
    const mapped = await api.create({ name: "mapped", byte_size: 20_000, session: session.id });
    const leased = await api.create({ name: "leased", byte_size: 30_000, session: session.id });
    const written = await api.create({ name: "written", byte_size: 40_000, session: session.id });
    for (const region of [mapped, leased]) {
      writeContent(region, 2);
      await api.seal(region.id);
    }
    const lease = await takeLease(api, leased.id);
    await worker.attach("mapped", mapped);
    await worker.attach("written", written, "write");
    const contents = [mapped, leased].map(({ storage }) => readContent(storage.path));
    const digest = await worker.digest("mapped");
    return {
      act: (server) => endSession(server.api, session.id),
      check: async (_, { step }) => {
        await checkEnded(api, session.id, step === "session.row-deleted");
        for (const [index, { id, name, storage }] of [mapped, leased].entries()) {
          expect(await api.get(id), `${name} is in use`).toMatchObject({ state: "sealed", name, in_use: true });
          expect(readContent(storage.path)).toEqual(contents[index] as (typeof contents)[0]);
        }
        expect((await listLeases(api, leased.id)).map(({ id }) => id)).toEqual([lease.id]);
        expect(await api.get(written.id)).toMatchObject({ state: "draining", name: null });
        expect(await worker.digest("mapped")).toBe(digest);
        for (const key of ["mapped", "written"]) await worker.detach(key);
        await endLease(api, lease.id);
        for (const { id } of [mapped, leased, written]) await api.untilGone(id);
      },
    };
  },
};

const ending: KillPoint[] = [
  ...at("session.end-begun", "claim.row-deleted", "lease.row-deleted"),
  ...at("delete.keeper-unlinked", "delete.row-deleted", "session.region-ended"),
  { step: "session.region-ended", count: 2 },
  ...at("session.row-deleted"),
];
const endingLarge = at("delete.keeper-unlinked", "session.region-ended");

export const sessionScenarios: readonly Scenario[] = [
  opening,
  endScenario("a session with small regions", 50_000, ending),
  endScenario("a session with a large region", 70 * MiB, endingLarge, needsRoom(256 * MiB)),
  endingLeased,
  endingByHold,
];
