/** Regions in flight whose list of tensors is too long for a row, and has a file: creation and deletion. */

import { expect } from "bun:test";
import { existsSync, readdirSync } from "node:fs";
import type { Instance } from "../harness/instance.ts";
import { at, hour, type Scenario } from "./scenario.ts";

/** Their list is twice as long as one that a row holds. */
export const manyTensors = Array.from({ length: 1000 }, (_, index) => {
  return { name: `layers.${index % 8}.experts.${index}.weight`, dtype: "F16" as const, shape: [2, 2] };
});

/** The regions, by token, whose list lies in a file. */
export function listFiles({ store }: Pick<Instance, "store">): string[] {
  return existsSync(`${store}/tensors`) ? readdirSync(`${store}/tensors`) : [];
}

const creating: Scenario = {
  claim: "a creation of many tensors",
  kills: at("create.list-written", "create.kept", "create.journaled"),
  prepare: async () => {
    let instance: Instance | undefined;
    return {
      act: (server) => {
        instance = server.instance;
        return server.api.create({ name: "new", tensors: manyTensors, persist: true });
      },
      check: async (api, { step }) => {
        const found = await api.findByName("new");
        const isWhole = step === "create.journaled";
        expect(found !== undefined, `after ${step} it is ${isWhole ? "whole" : "not there"}`).toBe(isWhole);
        expect(instance && listFiles(instance), `after ${step} a list is there if its region is`).toHaveLength(
          Number(isWhole),
        );
        if (found === undefined) return;
        expect(found.tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape }))).toEqual(manyTensors);
        expect(await api.delete(found.id)).toMatchObject({ state: "deleted" });
      },
    };
  },
};

const deletingMany: Scenario = {
  claim: "a deletion of many tensors",
  kills: at("delete.keeper-unlinked", "delete.row-deleted"),
  prepare: async (api) => {
    const { id } = await api.create({ name: "new", tensors: manyTensors, ttl_ms: hour });
    let instance: Instance | undefined;
    return {
      act: (server) => {
        instance = server.instance;
        return server.api.delete(id);
      },
      check: async (after, { step }) => {
        expect(await after.find(id), `after ${step} it is gone`).toBeUndefined();
        expect(instance && listFiles(instance), `after ${step} its list is gone`).toEqual([]);
      },
    };
  },
};

export const listScenarios: readonly Scenario[] = [creating, deletingMany];
