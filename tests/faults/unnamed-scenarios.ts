/** Regions without a public name, in flight when the server dies: private ones come back, and what was in memfd ends with it. */

import { expect } from "bun:test";
import type { KillPoint } from "../harness/server.ts";
import type { NewRegion } from "../harness/server-api.ts";
import { at, type Scenario } from "./scenario.ts";

const entering = at("create.journaled", "create.published");
const creating = [...at("create.header-written", "create.kept"), ...entering];

/** The region is there, whole, or nothing of it is; either way its name can be used. */
function createScenario(claim: string, storage: Partial<NewRegion>, isKept: boolean): Scenario {
  return {
    claim,
    kills: creating,
    warnings: isKept ? [] : [/^tensord\.region\.lost$/],
    prepare: async () => ({
      act: ({ api }) => api.create({ ...storage, name: "new", byte_size: 10_000, persist: true }),
      check: async (api, { step }) => {
        const found = await api.findByName("new");
        const isEntered = entering.some((kill) => kill.step === step);
        expect(found !== undefined, `after ${step}`).toBe(isKept && isEntered);
        if (found !== undefined) {
          expect(found).toMatchObject({ state: "open", revision: 1, storage: { path: null, private: true } });
          expect((await api.seal(found.id, { checksum: true })).state).toBe("sealed");
          expect(await api.delete(found.id)).toMatchObject({ state: "deleted" });
        }
        const next = await api.create({ ...storage, name: "new", byte_size: 1, persist: true });
        expect(await api.delete(next.id)).toMatchObject({ state: "deleted" });
      },
    }),
  };
}

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

function deleteScenario(claim: string, storage: Partial<NewRegion>, kills: readonly KillPoint[]): Scenario {
  return {
    claim,
    kills,
    prepare: async (api) => {
      const region = await api.create({ ...storage, name: "new", byte_size: 10_000, persist: true });
      return {
        act: (server) => server.api.delete(region.id),
        check: async () => {
          await api.untilGone(region.id);
          expect(await api.findByName("new")).toBeUndefined();
        },
      };
    },
  };
}

export const unnamedScenarios: readonly Scenario[] = [
  createScenario("the creation of a private region", { private: true }, true),
  createScenario("the creation of a region in memfd", { storage: "memfd" }, false),
  sealed,
  deleteScenario("the deletion of a private region", { private: true }, at("delete.journaled", "delete.asked")),
];
