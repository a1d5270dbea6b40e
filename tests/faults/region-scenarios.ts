/** Operations on regions in flight when the server dies: creation, seal, replacement, deletion, change. */

import { expect } from "bun:test";
import { modes } from "../harness/instance-check.ts";
import { type Content, exists, readContent, writeContent } from "../harness/instance-content.ts";
import { needsRoom } from "../harness/instance-needs.ts";
import type { KillPoint } from "../harness/server.ts";
import type { Region, ServerApi } from "../harness/server-api.ts";
import { at, atInLong, deleting, hour, type InFlight, MiB, type Scenario } from "./scenario.ts";

const creating = at(
  "create.reserved",
  "create.file-made",
  "create.window-allocated",
  "create.header-written",
  "create.kept",
  "create.journaled",
  "create.proved",
  "create.published",
);
const windowed: KillPoint[] = [
  { step: "create.window-allocated", count: 2 },
  ...at("create.header-written"),
  ...atInLong("create.file-made", "create.window-allocated", "create.kept", "create.journaled"),
];
/** The file of a large region is unlinked by a Worker, beside which the loop goes on. */
const deletingLarge = at("delete.asked", "delete.keeper-unlinked");
const sealing = [
  ...at("seal.mode-set", "seal.journaled"),
  ...atInLong("seal.begun", "seal.writers-asked", "seal.made-final", "seal.hashed", "proof.renewed"),
];
const sealingHashed = at(
  "seal.begun",
  "seal.mode-set",
  "seal.writers-asked",
  "seal.made-final",
  "seal.hashed",
  "seal.journaled",
  "proof.renewed",
);

const byName = "/v1/models/default/regions/new";

/** Of a creation nothing is left, or the region stands as it was asked for; either way its name can be used. */
function checkCreated(byteSize: number): InFlight["check"] {
  return async (api, { step }) => {
    const found = await api.findByName("new");
    const isWhole = ["create.journaled", "create.proved", "create.published"].includes(step);
    expect(found !== undefined, `after ${step} it is ${isWhole ? "whole" : "not there"}`).toBe(isWhole);
    if (found !== undefined) {
      expect(found).toMatchObject({ state: "open", revision: 1, labels: { in: "flight" }, has_writers: false });
      expect(found.tensors).toMatchObject([{ name: "data", shape: [byteSize], byte_size: byteSize }]);
      writeContent(found, 9);
      expect((await api.seal(found.id, { checksum: true })).state).toBe("sealed");
      expect(await api.delete(found.id)).toMatchObject({ state: "deleted" });
    }
    const next = await api.create({ name: "new", byte_size: 1, ttl_ms: hour });
    expect(await api.delete(next.id)).toMatchObject({ state: "deleted" });
  };
}

function createScenario(claim: string, byteSize: number, kills: readonly KillPoint[], needs?: string): Scenario {
  return {
    claim,
    kills,
    prepare: async () => ({
      act: ({ api }) => api.create({ name: "new", byte_size: byteSize, persist: true, labels: { in: "flight" } }),
      check: checkCreated(byteSize),
    }),
    needs,
  };
}

function sealScenario(
  claim: string,
  byteSize: number,
  options: { checksum: boolean; stock_writable?: boolean },
  kills: readonly KillPoint[],
): Scenario {
  return {
    claim,
    kills,
    prepare: async (api) => {
      const region = await api.create({ name: "new", byte_size: byteSize, persist: true });
      const content = readContent(region.storage.path);
      return {
        act: (server) => server.api.seal(region.id, options),
        check: async (_, { step }) => {
          const now = await api.get(region.id);
          const isSealed = step === "seal.journaled" || step === "proof.renewed";
          expect(now.state).toBe(isSealed ? "sealed" : "open");
          expect(now.checksum !== null).toBe(isSealed && options.checksum);
          expect(now.revision).toBe(isSealed ? region.revision + 1 : region.revision);
          const mode = isSealed ? (options.stock_writable === true ? modes.stockWritable : modes.sealed) : modes.open;
          expect(readContent(region.storage.path)).toEqual({ ...content, mode });
          if (isSealed) expect((await api.verify(region.id)).ok).toBe(options.checksum ? true : null);
          else expect((await api.seal(region.id, options)).state).toBe("sealed");
        },
      };
    },
  };
}

const replacing: Scenario = {
  claim: "a seal that takes a name over",
  kills: [
    ...at("seal.begun", "seal.mode-set", "seal.writers-asked", "seal.hashed", "seal.replaced-journaled"),
    // One has lost the name already, the other does not have it yet; then both.
    { step: "proof.renewed" },
    { step: "proof.renewed", count: 2 },
    ...at("delete.withdrawn", "delete.asked", "delete.keeper-unlinked", "delete.row-deleted"),
  ],
  prepare: async (api) => {
    const first = await api.create({ name: "new", byte_size: 20_000, persist: true });
    writeContent(first, 7);
    const old = await api.seal(first.id, { checksum: true });
    const next = await api.create({ name: "new", byte_size: 30_000, persist: true, if_exists: "replace" });
    const [oldContent, nextContent] = [readContent(old.storage.path), readContent(next.storage.path)];
    return {
      act: (server) => server.api.seal(next.id, { checksum: true }),
      check: async (_, { step, isAcknowledged }) => {
        const isReplaced = /^(seal\.replaced|proof|delete)/.test(step);
        const holder = await api.findByName("new");
        expect(holder?.id, "one of both holds the name").toBe(isReplaced ? next.id : old.id);
        if (isReplaced) {
          await api.untilGone(old.id);
          expect(exists(old.storage.path)).toBeFalse();
          expect(await api.get(next.id)).toMatchObject({ state: "sealed", name: "new", pending_name: null });
          expect(readContent(next.storage.path)).toEqual({ ...nextContent, mode: modes.sealed });
          expect((await api.verify(next.id)).ok).toBeTrue();
          return;
        }
        expect(isAcknowledged).toBeFalse();
        expect(readContent(old.storage.path)).toEqual(oldContent);
        expect((await api.verify(old.id)).ok).toBeTrue();
        expect(await api.get(next.id)).toMatchObject({ state: "open", name: null, pending_name: "new" });
        expect(readContent(next.storage.path)).toEqual(nextContent);
        expect(await api.seal(next.id)).toMatchObject({ state: "sealed", name: "new" });
        await api.untilGone(old.id);
      },
    };
  },
};

/** Two versions of a name that take two others' places: a group without another name than the scenario's own. */
const grouping: Scenario = {
  claim: "a seal of a group that takes its names over",
  kills: [
    ...at("seal.begun", "seal.mode-set"),
    { step: "seal.writers-asked", count: 2 },
    ...at("seal.hashed", "seal.replaced-journaled", "delete.row-deleted"),
  ],
  prepare: async (api) => {
    const make = async (version: string, seed: number) => {
      const region = await api.create({
        ...({ name: "new", version, byte_size: 20_000 + seed, persist: true, if_exists: "replace" } as const),
      });
      writeContent(region, seed);
      return region;
    };
    const sealAll = (to: ServerApi, group: readonly Region[]) =>
      to.call("POST", "/v1/seal", { checksum: true, regions: group.map(({ id }) => ({ region: id })) });
    const open = async () => {
      const found = await Promise.all(
        ["a", "b"].map((version) => api.call<Region>("GET", `${byName}?version=${version}`)),
      );
      return found.map(({ id }) => id);
    };
    const old = [await make("a", 1), await make("b", 2)];
    await sealAll(api, old);
    const next = [await make("a", 3), await make("b", 4)];
    const contents = next.map(({ storage }) => readContent(storage.path));
    return {
      act: (server) => sealAll(server.api, next),
      check: async (_, { step, isAcknowledged }) => {
        const isSealed = step === "seal.replaced-journaled" || step.startsWith("delete.");
        const holders = isSealed ? next : old;
        expect(await open(), "all the names are the old ones', or all the new ones'").toEqual(
          holders.map(({ id }) => id),
        );
        const mode = isSealed ? modes.sealed : modes.open;
        for (const [index, { id, storage }] of next.entries()) {
          expect((await api.get(id)).state).toBe(isSealed ? "sealed" : "open");
          expect(readContent(storage.path)).toEqual({ ...(contents[index] as Content), mode });
        }
        if (!isSealed) {
          expect(isAcknowledged).toBeFalse();
          await sealAll(api, next);
        }
        expect(await open()).toEqual(next.map(({ id }) => id));
        for (const { id } of next) expect((await api.verify(id)).ok).toBeTrue();
        for (const { id } of old) await api.untilGone(id);
      },
    };
  },
};

function deleteScenario(claim: string, byteSize: number, kills: readonly KillPoint[], needs?: string): Scenario {
  return {
    claim,
    kills,
    prepare: async (api) => {
      const region = await api.create({ name: "new", byte_size: byteSize, persist: true });
      return {
        act: (server) => server.api.delete(region.id),
        check: async () => {
          // The row says so since the first step, so the start goes on with it.
          await api.untilGone(region.id);
          expect(exists(region.storage.path)).toBeFalse();
          expect(await api.findByName("new")).toBeUndefined();
        },
      };
    },
    needs,
  };
}

const changing: Scenario = {
  claim: "a change of owner, labels and eviction at once",
  kills: at("change.journaled", "proof.renewed"),
  prepare: async (api) => {
    const region = await api.create({ name: "new", byte_size: 10_000, ttl_ms: hour, labels: { a: "1", b: "2" } });
    const change = { linger_ms: 1234, evictable: true, labels: { a: null, c: "3" } };
    return {
      act: (server) => server.api.call("PATCH", `/v1/regions/${region.id}`, change),
      check: async () => {
        expect(await api.get(region.id), "all of it is changed").toMatchObject({
          owner: { kind: "linger", linger_ms: 1234 },
          evictable: true,
          labels: { b: "2", c: "3" },
          revision: region.revision + 1,
        });
        expect((await api.delete(region.id)).state).toBe("deleted");
      },
    };
  },
};

export const regionScenarios: readonly Scenario[] = [
  createScenario("the creation of a small region", 100_000, creating),
  createScenario("the creation of a region in windows", 70 * MiB, windowed, needsRoom(256 * MiB)),
  sealScenario("a seal", 100_000, { checksum: false, stock_writable: true }, sealing),
  sealScenario("a seal with a checksum", 3 * MiB, { checksum: true }, sealingHashed),
  replacing,
  grouping,
  deleteScenario("the deletion of a small region", 100_000, deleting),
  deleteScenario("the deletion of a large region", 70 * MiB, deletingLarge, needsRoom(256 * MiB)),
  changing,
];
