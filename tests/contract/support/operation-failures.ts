/** Each failure that an operation of operations declares and that needs a world of its own. */

import type { TestApp } from "../../harness/app.ts";
import { tokenOf } from "../../harness/tokens-file.ts";
import { withDevice } from "./device-failures.ts";
import { askInVain, type FailureCase } from "./failure-case.ts";
import { createSealed } from "./operations.ts";
import { unknownSession } from "./requests.ts";
import { claimName, openSession } from "./sessions.ts";

const operationId = "copyRegion";
const tokens = [
  { name: "ops", role: "admin", token: tokenOf("ops") },
  { name: "trainer", role: "worker", token: tokenOf("trainer") },
];

async function copyInVain(app: TestApp, body: object) {
  return askInVain(app, "POST", `/v1/regions/${await createSealed(app)}/copy`, body);
}

export const operationCases: readonly FailureCase[] = [
  {
    operationId,
    code: "region-not-sealed",
    provoke: async (app) => askInVain(app, "POST", `/v1/regions/${(await app.create()).id}/copy`, { ttl_ms: 1000 }),
  },
  { operationId, code: "model-not-found", provoke: (app) => copyInVain(app, { model: "nobody", ttl_ms: 1000 }) },
  { operationId, code: "session-not-found", provoke: (app) => copyInVain(app, { session: unknownSession }) },
  { operationId, code: "storage-unavailable", provoke: (app) => copyInVain(app, { storage: "file", ttl_ms: 1000 }) },
  {
    operationId,
    code: "storage-unavailable",
    options: withDevice,
    provoke: async (app) => {
      const { id } = await app.create({ storage: "cuda_vmm", byte_size: 100 });
      await app.seal(id);
      return askInVain(app, "POST", `/v1/regions/${id}/copy`, { ttl_ms: 1000 });
    },
  },
  { operationId, code: "owner-required", provoke: (app) => copyInVain(app, {}) },
  {
    operationId,
    code: "claim-not-found",
    options: { tokens },
    provoke: async (app) => {
      app.token = tokenOf("ops");
      const { claim } = await claimName(app, await openSession(app));
      app.token = tokenOf("trainer");
      const answer = await copyInVain(app, { name: "weights", ttl_ms: 1000, claim });
      app.token = tokenOf("ops");
      return answer;
    },
  },
  {
    operationId,
    code: "shutting-down",
    provoke: async (app) => {
      const id = await createSealed(app);
      app.store.stop();
      return askInVain(app, "POST", `/v1/regions/${id}/copy`, { ttl_ms: 1000 });
    },
  },
];
