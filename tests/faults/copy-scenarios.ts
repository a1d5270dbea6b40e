/** Copies in flight when the server dies: there is a whole copy, sealed, or none. */

import { expect } from "bun:test";
import type { Step } from "../../src/memory/state/steps.ts";
import { until } from "../harness/server-wait.ts";
import { at, atInLong, hour, type Scenario } from "./scenario.ts";

interface Operation {
  readonly id: string;
  readonly ended_at: string | null;
}

/** What has no public name passes `create.published`, too, and publishes none. */
const passed = ["copy.source-leased", "copy.filled", "copy.read-back", "create.journaled", "create.published"] as const;

/** @param some where it dies in the short form, if not after each. */
function copying(storage: "shm" | "memfd" | "heap", some: readonly Step[] = passed): Scenario {
  return {
    claim: `a copy of a region into ${storage}`,
    kills: [...at(...some), ...atInLong(...passed.filter((step) => !some.includes(step)))],
    prepare: async (api) => {
      const { id: source } = await api.create({ byte_size: 100_000, ttl_ms: hour });
      const { checksum } = await api.seal(source, { checksum: true });
      return {
        act: async () => {
          const target = { name: "new", storage, persist: true };
          const { id } = await api.call<Operation>("POST", `/v1/regions/${source}/copy`, target);
          await until("the copy has ended", async () => {
            return (await api.call<Operation>("GET", `/v1/operations/${id}`)).ended_at !== null;
          });
        },
        check: async (_, { step }) => {
          const found = await api.findByName("new");
          const isWhole = step === "create.journaled" || step === "create.published";
          expect(found !== undefined, `after ${step} it is ${isWhole ? "whole" : "not there"}`).toBe(isWhole);
          if (found !== undefined) {
            expect(found).toMatchObject({ state: "sealed", checksum, storage: { kind: storage } });
            expect(await api.verify(found.id)).toMatchObject({ ok: true });
            expect(await api.delete(found.id)).toMatchObject({ state: "deleted" });
          }
          expect(await api.get(source)).toMatchObject({ state: "sealed", in_use: false });
          expect(await api.delete(source)).toMatchObject({ state: "deleted" });
        },
      };
    },
  };
}

export const copyScenarios: readonly Scenario[] = [
  copying("shm"),
  copying("memfd", ["copy.filled", "create.journaled"]),
  copying("heap", ["copy.read-back", "create.published"]),
];
