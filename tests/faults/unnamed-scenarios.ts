/** Private regions, in flight when the server dies: they come back. */

import { expect } from "bun:test";
import { at, atInLong, type Scenario } from "./scenario.ts";

const entering = at("create.journaled", "create.published");
const creating = [...at("create.kept", "create.published"), ...atInLong("create.header-written", "create.journaled")];

/** The region is there, whole, or nothing of it is; either way its name can be used. */
const created: Scenario = {
  claim: "the creation of a private region",
  kills: creating,
  prepare: async () => ({
    act: ({ api }) => api.create({ private: true, name: "new", byte_size: 10_000, persist: true }),
    check: async (api, { step }) => {
      const found = await api.findByName("new");
      expect(found !== undefined, `after ${step}`).toBe(entering.some((kill) => kill.step === step));
      if (found !== undefined) {
        expect(found).toMatchObject({ state: "open", revision: 1, storage: { path: null, private: true } });
        expect((await api.seal(found.id, { checksum: true })).state).toBe("sealed");
        expect(await api.delete(found.id)).toMatchObject({ state: "deleted" });
      }
      const next = await api.create({ private: true, name: "new", byte_size: 1, persist: true });
      expect(await api.delete(next.id)).toMatchObject({ state: "deleted" });
    },
  }),
};

const sealed: Scenario = {
  claim: "the seal of a private region",
  kills: at("seal.mode-set", "seal.made-final", "seal.journaled"),
  prepare: async (api) => {
    const region = await api.create({ private: true, name: "new", byte_size: 10_000, persist: true });
    return {
      act: (server) => server.api.seal(region.id, { checksum: true }),
      check: async (_, { step }) => {
        const now = await api.get(region.id);
        expect(now).toMatchObject({ state: step === "seal.journaled" ? "sealed" : "open", storage: region.storage });
        if (now.state === "open") await api.seal(region.id, { checksum: true });
        expect((await api.verify(region.id)).ok).toBeTrue();
      },
    };
  },
};

const deleted: Scenario = {
  claim: "the deletion of a private region",
  kills: at("delete.journaled", "delete.asked"),
  prepare: async (api) => {
    const region = await api.create({ private: true, name: "new", byte_size: 10_000, persist: true });
    return {
      act: (server) => server.api.delete(region.id),
      check: async () => {
        await api.untilGone(region.id);
        expect(await api.findByName("new")).toBeUndefined();
      },
    };
  },
};

export const unnamedScenarios: readonly Scenario[] = [created, sealed, deleted];
