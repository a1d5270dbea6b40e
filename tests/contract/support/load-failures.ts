/** Each failure that a load declares, with the world that it needs. */

import { appendFileSync } from "node:fs";
import { tmpdir } from "node:os";
import type { TestApp } from "../../harness/app.ts";
import { ModelFolder, modelFolder, tinyPath, tinyUri } from "../../harness/load.ts";
import { awaiting } from "./device-failures.ts";
import { askInVain, type FailureCase } from "./failure-case.ts";
import { load } from "./load.ts";
import { unknownSession } from "./requests.ts";

const operationId = "loadModel";

function loadInVain(app: TestApp, body: object, model = "default") {
  return askInVain(app, "POST", `/v1/models/${model}/load`, { uri: tinyUri, ...body });
}

export const loadCases: readonly FailureCase[] = [
  { operationId, code: "model-not-found", provoke: (app) => loadInVain(app, { ttl_ms: 1000 }, "nobody") },
  { operationId, code: "session-not-found", provoke: (app) => loadInVain(app, { session: unknownSession }) },
  { operationId, code: "storage-unavailable", provoke: (app) => loadInVain(app, { storage: "file", ttl_ms: 1000 }) },
  { operationId, code: "owner-required", provoke: (app) => loadInVain(app, {}) },
  ...(
    [
      ["adviseRegion", "advise", { advice: "dontneed" }],
      ["flushRegion", "flush", undefined],
    ] as const
  ).map(
    ([id, suffix, body]): FailureCase => ({
      operationId: id,
      code: "io-error",
      options: { modelRoots: [tmpdir()] },
      provoke: async (app) => {
        using folder = new ModelFolder();
        const path = folder.writeTensor("w.safetensors", Buffer.alloc(9));
        const region = await load(app, path, { mode: "map" });
        appendFileSync(path, "more");
        return await askInVain(app, "POST", `/v1/regions/${region}/${suffix}`, body);
      },
    }),
  ),
  {
    operationId: "verifyRegion",
    code: "storage-unavailable",
    provoke: async (app) => {
      const region = await load(app, tinyPath, { mode: "map" });
      // As if it lay on a file system that may keep the server waiting.
      const token = region.slice("reg_".length);
      const { origin } = app.store.storages.get("file");
      const { dev, ino } = app.store.books.region(region).identity;
      origin?.bind(token, {
        ...{ dev, ino, root: modelFolder, below: "tiny.safetensors" },
        ...{ byteSize: 0, mtimeNs: "0", isRemote: true },
      });
      return await askInVain(app, "POST", `/v1/regions/${region}/verify`);
    },
  },
  {
    operationId,
    code: "not-ready",
    options: awaiting,
    provoke: (app) => loadInVain(app, { storage: "cuda_vmm", ttl_ms: 1000 }),
  },
  {
    operationId,
    code: "shutting-down",
    provoke: async (app) => {
      app.store.stop();
      return await loadInVain(app, { ttl_ms: 1000 });
    },
  },
];
