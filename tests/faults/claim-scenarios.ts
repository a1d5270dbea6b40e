/** Operations on claims and leases by request in flight when the server dies. */

import { expect } from "bun:test";
import { writeContent } from "../harness/instance-content.ts";
import {
  type Claim,
  claim,
  claimPath,
  claimToBuild,
  endLease,
  endSession,
  listLeases,
  openSession,
  releaseClaim,
  takeLease,
} from "../harness/instance-sessions.ts";
import type { ServerApi } from "../harness/server-api.ts";
import { at, hour, type Scenario } from "./scenario.ts";

const claiming: Scenario = {
  claim: "the grant of a claim",
  kills: at("claim.journaled"),
  prepare: async (api) => {
    const [first, second] = [await openSession(api), await openSession(api)];
    return {
      act: (server) => claim(server.api, "new", first.id, "again"),
      check: async () => {
        // The answer was lost, the right was not: its key finds it, and nobody else builds meanwhile.
        expect(await claim(api, "new", second.id)).toMatchObject({ role: "reader", region: null });
        const id = await claimToBuild(api, "new", first.id, "again");
        expect((await api.problem("POST", "/v1/regions", { name: "new", byte_size: 1, ttl_ms: hour })).code).toBe(
          "name-claimed",
        );
        const region = await api.create({ name: "new", byte_size: 1, ttl_ms: hour, claim: id });
        await api.seal(region.id);
        expect(await claim(api, "new", second.id)).toMatchObject({ role: "reader", region: { id: region.id } });
        await api.delete(region.id);
        for (const { id } of [first, second]) await endSession(api, id);
      },
    };
  },
};

const rebuilding: Scenario = {
  claim: "a rebuild",
  kills: at("claim.journaled", "create.journaled", "seal.replaced-journaled", "claim.row-deleted"),
  prepare: async (api) => {
    const [builder, reader] = [await openSession(api), await openSession(api)];
    const old = await api.create({ name: "new", byte_size: 40_000, persist: true });
    writeContent(old, 5);
    await api.seal(old.id, { checksum: true });
    const ask = (session: { readonly id: string }, to: ServerApi) =>
      to.call<Claim>("POST", claimPath("new"), { session: session.id, key: session.id, rebuild: old.id });
    const create = async (to: ServerApi) => {
      const { claim: id } = await ask(builder, to);
      const request = { name: "new", byte_size: 60_000, persist: true, if_exists: "replace", claim: id ?? "" } as const;
      return await to.create(request);
    };
    return {
      act: async ({ api: to }) => await to.seal((await create(to)).id),
      check: async (_, { step }) => {
        const isBuilt = step === "seal.replaced-journaled" || step === "claim.row-deleted";
        const holder = await api.findByName("new");
        if (isBuilt) {
          await api.untilGone(old.id);
          expect(holder, "the new one has the name").toMatchObject({
            state: "sealed",
            tensors: [{ byte_size: 60_000 }],
          });
        } else {
          expect(holder?.id, "the old one stands").toBe(old.id);
          expect((await api.verify(old.id)).ok).toBeTrue();
          expect(await ask(reader, api), "nobody else builds").toMatchObject({ role: "reader", region: null });
          const made = await create(api);
          const pending = (await api.list()).filter(({ pending_name: name }) => name === "new");
          expect(pending, "what a lost answer told of is found again, and no second one made").toHaveLength(1);
          await api.seal(made.id);
          await api.untilGone(old.id);
        }
        expect((await api.stats()).claims, "no claim is left of what is built").toBe(2);
        await api.delete((await api.findByName("new"))?.id ?? "");
        for (const { id } of [builder, reader]) await endSession(api, id);
      },
    };
  },
};

const releasing: Scenario = {
  claim: "the release of a claim",
  kills: at("claim.row-deleted"),
  prepare: async (api) => {
    const [first, second] = [await openSession(api), await openSession(api)];
    const id = await claimToBuild(api, "new", first.id, "key");
    return {
      act: (server) => releaseClaim(server.api, "new", id),
      check: async () => {
        expect(await claimToBuild(api, "new", second.id)).not.toBe(id);
        expect((await api.problem("DELETE", `/v1/models/default/regions/new/claim?claim=${id}`)).code).toBe(
          "claim-not-found",
        );
        for (const session of [first, second]) await endSession(api, session.id);
      },
    };
  },
};

const building: Scenario = {
  claim: "the seal of what is built under a claim",
  kills: at("seal.begun", "seal.journaled", "claim.row-deleted"),
  prepare: async (api) => {
    const [builder, reader] = [await openSession(api), await openSession(api)];
    const id = await claimToBuild(api, "new", builder.id, "key");
    const region = await api.create({ name: "new", byte_size: 60_000, linger_ms: hour, claim: id });
    writeContent(region, 3);
    return {
      act: (server) => server.api.seal(region.id, { checksum: true }),
      check: async (_, { step }) => {
        if (step === "seal.begun") {
          // Not finished: the builder has its claim still, and its session still ends the region.
          expect(await claimToBuild(api, "new", builder.id, "key")).toBe(id);
          expect(await api.get(region.id)).toMatchObject({ state: "open", session: builder.id });
          await endSession(api, builder.id);
          expect(await api.find(region.id)).toBeUndefined();
          await claimToBuild(api, "new", reader.id);
        } else {
          expect(await claim(api, "new", reader.id)).toMatchObject({ role: "reader", region: { id: region.id } });
          expect((await api.stats()).claims, "no claim is left of what is built").toBe(2);
          await endSession(api, builder.id);
          expect(await api.get(region.id)).toMatchObject({ state: "sealed", name: "new", session: null });
          expect((await api.verify(region.id)).ok).toBeTrue();
          await api.delete(region.id);
        }
        await endSession(api, reader.id);
      },
    };
  },
};

function leaseScenario(what: "taking" | "ending"): Scenario {
  const isTaking = what === "taking";
  return {
    claim: `the ${what} of a lease by request`,
    kills: at(isTaking ? "lease.journaled" : "lease.row-deleted"),
    prepare: async (api) => {
      const region = await api.create({ name: "new", byte_size: 10_000, persist: true });
      await api.seal(region.id);
      const taken = isTaking ? undefined : await takeLease(api, region.id);
      return {
        act: (server) => (taken === undefined ? takeLease(server.api, region.id) : endLease(server.api, taken.id)),
        check: async () => {
          const leases = await listLeases(api, region.id);
          expect(leases).toHaveLength(isTaking ? 1 : 0);
          expect(await api.get(region.id)).toMatchObject({ in_use: isTaking, leases: leases.length });
          expect((await api.delete(region.id)).state).toBe(isTaking ? "draining" : "deleted");
          for (const { id } of leases) await endLease(api, id);
          await api.untilGone(region.id);
        },
      };
    },
  };
}

export const claimScenarios: readonly Scenario[] = [
  claiming,
  rebuilding,
  releasing,
  building,
  leaseScenario("taking"),
  leaseScenario("ending"),
];
