/** Making room in flight when the server dies: an eviction by request, and a creation that evicts. */

import { expect } from "bun:test";
import type { Step } from "../../src/memory/state/steps.ts";
import { leap, leapingClock } from "../harness/instance-clock.ts";
import { exists, readContent, writeContent } from "../harness/instance-content.ts";
import { isLong } from "../harness/rounds.ts";
import type { KillPoint, TestServer } from "../harness/server.ts";
import { Refused, type Region, type ServerApi } from "../harness/server-api.ts";
import { until } from "../harness/server-wait.ts";
import { at, atInLong, hour, type Scenario } from "./scenario.ts";

/** In a model of its own, which has room for three of its regions. */
const byteSize = 60_000;
const model = "new";
const chargedBytes = 16 * 4096;

async function register(api: ServerApi): Promise<void> {
  await api.call("POST", "/v1/models", { name: model, memory_limit_bytes: 3 * chargedBytes });
}

async function makeEvictable(api: ServerApi, seed: number): Promise<Region> {
  const region = await api.create({
    model,
    name: `evictable-${seed}`,
    byte_size: byteSize,
    ttl_ms: hour,
    evictable: true,
  });
  writeContent(region, seed);
  return api.seal(region.id, { checksum: true });
}

/** Whole, as it was; or gone, with its name and its file. */
async function checkEvicted(api: ServerApi, region: Region, isGone: boolean, content: ReturnType<typeof readContent>) {
  if (isGone) {
    await api.untilGone(region.id);
    expect(exists(region.storage.path)).toBeFalse();
    return;
  }
  expect(await api.get(region.id)).toMatchObject({ state: "sealed", name: region.name, revision: region.revision });
  expect(readContent(region.storage.path)).toEqual(content);
  expect((await api.verify(region.id)).ok).toBeTrue();
}

async function unregister(api: ServerApi): Promise<void> {
  await api.call("DELETE", `/v1/models/${model}?drain=true`);
  expect((await api.list()).filter((region) => region.model === model && region.state !== "draining")).toEqual([]);
}

const second = (...names: Step[]): KillPoint[] => names.map((step) => ({ step, count: 2 }));

const evicting: Scenario = {
  claim: "an eviction of two regions by request",
  kills: [
    ...at("delete.withdrawn", "delete.keeper-unlinked"),
    ...second("delete.journaled", "delete.row-deleted"),
    ...atInLong("delete.journaled", "delete.asked", "delete.row-deleted"),
    ...(isLong ? second("delete.keeper-unlinked") : []),
  ],
  env: leapingClock,
  prepare: async (api) => {
    await register(api);
    const regions = [await makeEvictable(api, 1), await makeEvictable(api, 2), await makeEvictable(api, 3)];
    const contents = regions.map(({ storage }) => readContent(storage.path));
    return {
      act: (server) => evictSoon(server, 2 * chargedBytes),
      check: async (_, { count }) => {
        for (const [index, region] of regions.entries()) {
          const content = contents[index] as (typeof contents)[0];
          // One after the other, the least recently used first, and no more than were asked for.
          await checkEvicted(api, region, index < count, content);
        }
        await unregister(api);
      },
    };
  },
};

/** Evicts as soon as the clock has leapt, before which everything was handed out a moment ago. */
async function evictSoon(server: TestServer, bytes: number): Promise<void> {
  leap(server);
  await until("both are evicted", async () => {
    const { freed_bytes } = await server.api.call<{ freed_bytes: number }>("POST", "/v1/evict", { bytes, model });
    return freed_bytes > 0;
  });
}

const creatingOnFull: Scenario = {
  claim: "a creation that evicts what is in its way",
  kills: [
    ...at("delete.journaled", "delete.row-deleted", "create.reserved", "create.journaled"),
    ...atInLong("delete.withdrawn", "delete.asked", "delete.keeper-unlinked", "create.file-made"),
    ...atInLong("create.window-allocated", "create.header-written", "create.kept", "create.published"),
  ],
  env: leapingClock,
  prepare: async (api) => {
    await register(api);
    const regions = [await makeEvictable(api, 1), await makeEvictable(api, 2), await makeEvictable(api, 3)];
    const contents = regions.map(({ storage }) => readContent(storage.path));
    return {
      act: (server) => createSoon(server),
      check: async (_, { step }) => {
        for (const [index, region] of regions.entries()) {
          await checkEvicted(api, region, index === 0, contents[index] as (typeof contents)[0]);
        }
        const made = (await api.list()).filter(({ name }) => name === "new");
        const isWhole = step === "create.journaled" || step === "create.published";
        expect(made).toMatchObject(isWhole ? [{ state: "open", revision: 1, model }] : []);
        // What was evicted for it is free, whether it came to be or not.
        const next = { model, name: "new", byte_size: byteSize, ttl_ms: hour, if_exists: "attach" } as const;
        expect(await api.create(next)).toMatchObject({ state: "open", name: "new" });
        await unregister(api);
      },
    };
  },
};

async function createSoon(server: TestServer): Promise<void> {
  leap(server);
  await until("there is room", async () => {
    try {
      await server.api.create({ model, name: "new", byte_size: byteSize, ttl_ms: hour, on_full: "evict" });
      return true;
    } catch (error) {
      if (error instanceof Refused && error.problem.code === "model-limit-exceeded") return false;
      throw error;
    }
  });
}

export const roomScenarios: readonly Scenario[] = [evicting, creatingOnFull];
