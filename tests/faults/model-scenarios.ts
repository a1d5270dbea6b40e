/** Operations on models in flight when the server dies: registration, a new limit, and the end with all regions. */

import { expect } from "bun:test";
import type { ServerApi } from "../harness/server-api.ts";
import { at, hour, MiB, type Scenario } from "./scenario.ts";

async function findModel(api: ServerApi): Promise<Record<string, unknown> | undefined> {
  const { status, body } = await api.request<Record<string, unknown>>("GET", "/v1/models/new");
  return status === 200 ? body : undefined;
}

function register(api: ServerApi): Promise<unknown> {
  return api.call("POST", "/v1/models", { name: "new", memory_limit_bytes: MiB });
}

const registering: Scenario = {
  claim: "the registration of a model",
  kills: at("model.journaled"),
  prepare: async () => ({
    act: ({ api }) => register(api),
    check: async (api) => {
      expect(await findModel(api)).toMatchObject({ pools: [{ limit_bytes: MiB, used_bytes: 0 }], revision: 1 });
      expect((await api.problem("POST", "/v1/models", { name: "new" })).code).toBe("model-exists");
      await api.call("DELETE", "/v1/models/new");
    },
  }),
};

const limiting: Scenario = {
  claim: "a model's new limit",
  kills: at("model.journaled"),
  prepare: async (api) => {
    await register(api);
    return {
      act: (server) => server.api.call("PATCH", "/v1/models/new", { memory_limit_bytes: 2 * MiB }),
      check: async () => {
        expect(await findModel(api)).toMatchObject({ pools: [{ limit_bytes: 2 * MiB }], revision: 2 });
        await api.call("DELETE", "/v1/models/new");
      },
    };
  },
};

const unregistering: Scenario = {
  claim: "the end of a model with its regions",
  kills: [
    ...at("delete.journaled", "delete.row-deleted"),
    { step: "delete.journaled", count: 2 },
    ...at("model.row-deleted"),
  ],
  prepare: async (api) => {
    await register(api);
    const regions = [
      await api.create({ model: "new", name: "one", byte_size: 10_000, persist: true }),
      await api.create({ model: "new", name: "two", byte_size: 20_000, ttl_ms: hour }),
    ] as const;
    return {
      act: (server) => server.api.call("DELETE", "/v1/models/new?drain=true"),
      check: async (_, { step }) => {
        const isGone = step === "model.row-deleted";
        expect((await findModel(api)) === undefined).toBe(isGone);
        await api.untilGone(regions[0].id);
        // The second one was not asked for yet, and stands whole.
        const standing = await api.find(regions[1].id);
        const isStanding = !isGone && standing?.state === "open";
        if (!isGone)
          expect(await findModel(api)).toMatchObject({ regions: isStanding ? 1 : 0, pools: [{ limit_bytes: MiB }] });
        if (isStanding) expect(await api.problem("DELETE", "/v1/models/new")).toMatchObject({ code: "model-in-use" });
        if (!isGone) await api.call("DELETE", "/v1/models/new?drain=true");
        await api.untilGone(regions[1].id);
        await register(api);
        await api.call("DELETE", "/v1/models/new");
      },
    };
  },
};

export const modelScenarios: readonly Scenario[] = [registering, limiting, unregistering];
