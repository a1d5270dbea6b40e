/** Each failure that an operation on regions declares and that needs a world of its own. */

import { rmdirSync } from "node:fs";
import { limits, MiB } from "../../../src/memory/limits.ts";
import type { RegionList } from "../../harness/answers.ts";
import { type TestApp, until } from "../../harness/app.ts";
import { askInVain, type FailureCase } from "./failure-case.ts";
import { Intruder, lease } from "./lease.ts";
import { unknownSession } from "./requests.ts";

/** Long enough in the making to be met there: allocated in windows, hashed in more than one chunk. */
export const slowBytes = 192 * MiB;

const busyRequests = {
  changeRegion: { method: "PATCH", suffix: "", body: { ttl_ms: 1000 } },
  sealRegion: { method: "POST", suffix: "/seal", body: {} },
  verifyRegion: { method: "POST", suffix: "/verify", body: undefined },
  copyRegion: { method: "POST", suffix: "/copy", body: { ttl_ms: 1000 } },
  adviseRegion: { method: "POST", suffix: "/advise", body: { advice: "dontneed" } },
  flushRegion: { method: "POST", suffix: "/flush", body: undefined },
} as const;

const inCreation = Object.entries(busyRequests).map(([operationId, { method, suffix, body }]): FailureCase => {
  const provoke = async (app: TestApp) => {
    const creation = app.create({ byte_size: slowBytes });
    const id = await idInState(app, "creating");
    const answer = await app.request(method, `/v1/regions/${id}${suffix}`, body);
    await creation;
    return answer;
  };
  return { operationId, code: "region-busy", provoke };
});

const whileDraining = Object.entries(busyRequests).map(([operationId, { method, suffix, body }]): FailureCase => {
  const provoke = async (app: TestApp) => {
    const { id, storage } = await app.create();
    using _ = lease(storage.path);
    await app.remove(id);
    return await askInVain(app, method, `/v1/regions/${id}${suffix}`, body);
  };
  return { operationId, code: "region-draining", provoke };
});

const byName: readonly FailureCase[] = [
  ...(["PATCH", "DELETE"] as const).map((method): FailureCase => {
    const path = "/v1/models/default/regions/weights?version=2";
    return {
      operationId: method === "PATCH" ? "changeRegionByName" : "deleteRegionByName",
      code: "region-not-found",
      provoke: async (app) => {
        await app.create({ name: "weights", version: "1" });
        return askInVain(app, method, path, method === "PATCH" ? { ttl_ms: 1000 } : undefined);
      },
    };
  }),
  {
    operationId: "changeRegionByName",
    code: "region-busy",
    provoke: async (app) => {
      const creation = app.create({ name: "weights", byte_size: slowBytes });
      await idInState(app, "creating");
      const answer = await app.request("PATCH", "/v1/models/default/regions/weights", { ttl_ms: 1000 });
      await creation;
      return answer;
    },
  },
];

const creations: readonly FailureCase[] = [
  {
    operationId: "createRegion",
    code: "model-not-found",
    provoke: (app) => askInVain(app, "POST", "/v1/regions", { model: "nobody", byte_size: 1, ttl_ms: 1000 }),
  },
  {
    operationId: "createRegion",
    code: "owner-required",
    provoke: (app) => askInVain(app, "POST", "/v1/regions", { byte_size: 1 }),
  },
  {
    operationId: "createRegion",
    code: "storage-unavailable",
    provoke: (app) => askInVain(app, "POST", "/v1/regions", { byte_size: 1, ttl_ms: 1000, storage: "cuda_vmm" }),
  },
  {
    operationId: "createRegion",
    code: "name-taken",
    provoke: async (app) => {
      await app.create({ name: "weights" });
      return askInVain(app, "POST", "/v1/regions", { byte_size: 1, ttl_ms: 1000, name: "weights" });
    },
  },
  {
    operationId: "createRegion",
    code: "cancelled",
    provoke: async (app) => {
      const creation = app.request("POST", "/v1/regions", { byte_size: slowBytes, ttl_ms: 1000 });
      await app.remove(await idInState(app, "creating"));
      return creation;
    },
  },
  {
    operationId: "createRegion",
    code: "model-limit-exceeded",
    provoke: async (app) => {
      await app.register("small", MiB);
      return askInVain(app, "POST", "/v1/regions", { model: "small", byte_size: MiB, ttl_ms: 1000 });
    },
  },
  {
    operationId: "createRegion",
    code: "pool-full",
    options: { memoryLimitBytes: 16 * MiB },
    provoke: (app) => askInVain(app, "POST", "/v1/regions", { byte_size: 16 * MiB, ttl_ms: 1000 }),
  },
  {
    operationId: "createRegion",
    code: "io-error",
    provoke: async (app) => {
      // Somebody with the server's rights removed the folder in which regions are made.
      rmdirSync(`${app.shmDirectory}/tensord.${app.instance}/new`);
      const answer = await app.request("POST", "/v1/regions", { byte_size: 1, ttl_ms: 1000 });
      app.restoreFolder("new");
      return answer;
    },
  },
  {
    operationId: "createRegion",
    code: "shutting-down",
    provoke: async (app) => {
      app.store.stop();
      return askInVain(app, "POST", "/v1/regions", { byte_size: 1, ttl_ms: 1000 });
    },
  },
];

const reads: readonly FailureCase[] = [
  {
    operationId: "listRegions",
    code: "model-not-found",
    provoke: (app) => askInVain(app, "GET", "/v1/regions?model=nobody"),
  },
  {
    operationId: "listRegions",
    code: "session-not-found",
    provoke: (app) => askInVain(app, "GET", `/v1/regions?session=${unknownSession}`),
  },
  {
    operationId: "getRegionByName",
    code: "region-not-found",
    provoke: (app) => askInVain(app, "GET", "/v1/models/default/regions/nothing"),
  },
  {
    operationId: "getRegionByName",
    code: "too-many-requests",
    provoke: async (app) => {
      const stop = new AbortController();
      const waiting = Array.from({ length: limits.waiters }, () =>
        app.store.waiters.wait("default", "other", 60_000, stop.signal).catch(() => {}),
      );
      const answer = await waitFor(app, "weights");
      stop.abort();
      await Promise.all(waiting);
      return answer;
    },
  },
  {
    operationId: "getRegionByName",
    code: "shutting-down",
    provoke: (app) => {
      const answer = waitFor(app, "weights");
      setTimeout(() => app.store.stop());
      return answer;
    },
  },
];

const changesAndSeals: readonly FailureCase[] = [
  {
    operationId: "sealRegion",
    code: "region-sealed",
    provoke: async (app) => {
      const { id } = await app.create();
      await app.seal(id);
      return askInVain(app, "POST", `/v1/regions/${id}/seal`, {});
    },
  },
  {
    operationId: "sealRegion",
    code: "region-has-writers",
    provoke: async (app) => {
      const { id, storage } = await app.create();
      using _ = lease(storage.path, "write");
      return await askInVain(app, "POST", `/v1/regions/${id}/seal`, {});
    },
  },
  {
    operationId: "sealRegion",
    code: "cancelled",
    provoke: async (app) => {
      const { id } = await app.create({ byte_size: slowBytes });
      const seal = app.request("POST", `/v1/regions/${id}/seal`, { checksum: true });
      await until("the seal is under way", async () => (await app.get(id)).state === "sealing");
      await app.remove(id);
      return seal;
    },
  },
  {
    operationId: "sealRegion",
    code: "io-error",
    provoke: async (app) => {
      const { id, storage } = await app.create();
      using intruder = new Intruder(storage.path);
      intruder.truncate(storage.byte_size - 1);
      return await askInVain(app, "POST", `/v1/regions/${id}/seal`, {});
    },
  },
  {
    operationId: "sealRegion",
    code: "shutting-down",
    provoke: async (app) => {
      const { id } = await app.create({ byte_size: slowBytes });
      const seal = app.request("POST", `/v1/regions/${id}/seal`, { checksum: true });
      await until("the seal is under way", async () => (await app.get(id)).state === "sealing");
      app.store.stop();
      return seal;
    },
  },
];

const verifications: readonly FailureCase[] = [
  {
    operationId: "verifyRegion",
    code: "region-not-sealed",
    provoke: async (app) => askInVain(app, "POST", `/v1/regions/${(await app.create()).id}/verify`),
  },
  {
    operationId: "verifyRegion",
    code: "cancelled",
    provoke: (app) => interruptVerification(app, (id) => app.remove(id)),
  },
  {
    operationId: "verifyRegion",
    code: "shutting-down",
    provoke: (app) => interruptVerification(app, async () => app.store.stop()),
  },
  {
    operationId: "verifyRegion",
    code: "io-error",
    provoke: async (app) => {
      const { id, storage } = await app.create();
      using intruder = new Intruder(storage.path);
      await app.seal(id);
      intruder.truncate(storage.byte_size - 1);
      return await askInVain(app, "POST", `/v1/regions/${id}/verify`);
    },
  },
];

export const regionCases: readonly FailureCase[] = [
  ...inCreation,
  ...whileDraining,
  ...byName,
  ...creations,
  ...reads,
  ...changesAndSeals,
  ...verifications,
];

async function interruptVerification(app: TestApp, interrupt: (id: string) => Promise<unknown>) {
  const { id } = await app.create({ byte_size: slowBytes });
  await app.seal(id);
  const verification = app.request("POST", `/v1/regions/${id}/verify`);
  await until("the verification is under way", async () => (await app.get(id)).in_use);
  await interrupt(id);
  return verification;
}

/** The only region in this state, as soon as there is one. */
export async function idInState(app: TestApp, state: string): Promise<string> {
  return until(`a region is ${state}`, async () => {
    const { items } = await app.ok<RegionList>(200, "GET", `/v1/regions?state=${state}`);
    return items[0]?.id;
  });
}

function waitFor(app: TestApp, name: string) {
  return app.request("GET", `/v1/models/default/regions/${name}`, undefined, { headers: { prefer: "wait=60" } });
}
