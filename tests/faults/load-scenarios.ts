/** Loads in flight when the server dies: there is a whole region, sealed, or none, and the file can be loaded again. */

import { expect } from "bun:test";
import { mkdirSync, statSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { MiB } from "../../src/memory/limits.ts";
import type { Step } from "../../src/memory/state/steps.ts";
import { root } from "../harness/instance-needs.ts";
import { modelFolder, shardedUri, tinyAgainUri, tinyPath, tinyUri, toUri } from "../harness/load.ts";
import { safetensorsFile } from "../harness/model-files.ts";
import type { ServerApi } from "../harness/server-api.ts";
import { until } from "../harness/server-wait.ts";
import { at, atInLong, type Scenario } from "./scenario.ts";

interface Operation {
  readonly id: string;
  readonly region: string | null;
  readonly ended_at: string | null;
}

async function load(api: ServerApi, body: object): Promise<string | null> {
  const { id } = await api.call<Operation>("POST", "/v1/models/default/load", { persist: true, ...body });
  return await until("the load has ended", async () => {
    const { ended_at, region } = await api.call<Operation>("GET", `/v1/operations/${id}`);
    return ended_at !== null && (region ?? "failed");
  });
}

/** One whose pages come as it is written: the tiny ones have theirs at once. */
const largePath = join(root, ".tmp/fault-models/large.safetensors");
mkdirSync(dirname(largePath), { recursive: true });
const largeHeader = { w: { dtype: "U8", shape: [3 * MiB], data_offsets: [0, 3 * MiB] } };
writeFileSync(largePath, safetensorsFile(JSON.stringify(largeHeader), new Uint8Array(3 * MiB).fill(7)));

const passed = ["load.opened", "load.part-written", "load.filled", "create.journaled", "create.published"] as const;

interface Load {
  readonly uri: string;
  readonly storage: "shm" | "memfd";
  readonly format?: "raw";
}

/** @param some where it dies in the short form, if not after each step. */
function loading(what: string, body: Load, some: readonly Step[] = passed): Scenario {
  const { storage, uri } = body;
  const [name = ""] = basename(uri).split(".");
  return {
    claim: `a load of ${what} into ${storage}`,
    env: { TENSORD_MODEL_ROOTS: `${modelFolder},${dirname(largePath)}` },
    kills: [...at(...some), ...atInLong(...passed.filter((step) => !some.includes(step)))],
    prepare: async (api) => ({
      act: () => load(api, body),
      check: async (_, { step }) => {
        const found = await api.findByName(name);
        const isWhole = step === "create.journaled" || step === "create.published";
        expect(found !== undefined, `after ${step} it is ${isWhole ? "whole" : "not there"}`).toBe(isWhole);
        const id = await load(api, body);
        if (found !== undefined) expect(id).toBe(found.id);
        const region = await api.get(id as string);
        expect(region).toMatchObject({ state: "sealed", storage: { kind: storage } });
        expect(await api.verify(region.id)).toMatchObject({ ok: true });
        expect(await api.delete(region.id)).toMatchObject({ state: "deleted" });
      },
    }),
  };
}

/** What stands for a file with the same bytes goes on standing. */
function comparing(): Scenario {
  const body = { uri: tinyAgainUri, name: "tiny" };
  return {
    claim: "a load of a file with the bytes of a region",
    env: { TENSORD_MODEL_ROOTS: modelFolder },
    kills: at("load.compared"),
    prepare: async (api) => {
      const first = (await load(api, { uri: tinyUri })) as string;
      return {
        act: () => load(api, body),
        check: async () => {
          expect(await load(api, body)).toBe(first);
          expect(await api.verify(first)).toMatchObject({ ok: true });
          expect(await api.delete(first)).toMatchObject({ state: "deleted" });
        },
      };
    },
  };
}

/** The file that is mapped is nobody's to change, whenever the server dies. */
function mapping(): Scenario {
  const body = { uri: tinyUri, mode: "map" };
  const before = toState();
  return {
    claim: "a file that is mapped where it lies",
    env: { TENSORD_MODEL_ROOTS: modelFolder },
    kills: at("load.bound", "create.journaled", "delete.keeper-unlinked"),
    prepare: async (api) => ({
      act: async () => {
        const id = await load(api, body);
        await api.delete(id as string);
      },
      check: async (_, { step }) => {
        const found = await api.findByName("tiny");
        const isWhole = step === "create.journaled";
        expect(found !== undefined, `after ${step} it is ${isWhole ? "whole" : "not there"}`).toBe(isWhole);
        const id = await load(api, body);
        if (found !== undefined) expect(id).toBe(found.id);
        const { state, storage } = await api.get(id as string);
        expect(state).toBe("sealed");
        expect(storage).toMatchObject({ kind: "file", path: tinyPath, changed: null });
        expect(await api.delete(id as string)).toMatchObject({ state: "deleted", freed_bytes: 0 });
        expect(toState()).toEqual(before);
      },
    }),
  };
}

function toState() {
  const { ino, mode, nlink, size, mtimeNs, ctimeNs } = statSync(tinyPath, { bigint: true });
  return { ino, mode, nlink, size, mtimeNs, ctimeNs };
}

export const loadScenarios: readonly Scenario[] = [
  loading("a file", { uri: tinyUri, storage: "shm" }),
  loading("a file as bytes", { uri: tinyUri, storage: "memfd", format: "raw" }, ["load.filled", "create.published"]),
  loading("a large file", { uri: toUri(largePath), storage: "shm" }, ["create.pages-promised", "load.part-written"]),
  loading("a large file", { uri: toUri(largePath), storage: "memfd" }, ["create.pages-promised"]),
  loading("a model in several files", { uri: shardedUri, storage: "shm" }, ["load.part-written", "create.journaled"]),
  comparing(),
  mapping(),
];
