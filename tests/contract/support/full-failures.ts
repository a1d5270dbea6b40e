/** Failures of a file system that has no page or no inode left, provoked on a small one of our own. */

import { truncateSync } from "node:fs";
import { MiB } from "../../../src/memory/limits.ts";
import type { Answer, Region } from "../../harness/answers.ts";
import type { TestApp } from "../../harness/app.ts";
import { writeBytes } from "./data-requests.ts";
import type { FullCase } from "./failure-case.ts";
import { askInVain } from "./failure-case.ts";
import { lease } from "./lease.ts";
import type { SmallTmpfs } from "./small-tmpfs.ts";

/** More than the ballast pays for, and so few that the log still grows: one that has been rewound has pages of its own. */
export const attempts = 20;

/** Asks again and again with every page taken, until there is not one left for the journal's row. */
export async function untilRefused(
  app: TestApp,
  tmpfs: SmallTmpfs,
  ask: (attempt: number) => Promise<Answer>,
): Promise<Answer> {
  for (let attempt = 0; attempt < attempts; attempt++) {
    tmpfs.fill();
    const before = app.footprint();
    const answer = await ask(attempt);
    if (answer.status < 400) continue;
    if (!Bun.deepEquals(before, app.footprint())) throw new Error("the refusal left something behind");
    return answer;
  }
  throw new Error(`${attempts} requests found room in a file system without any`);
}

async function createMany(app: TestApp, count: number): Promise<Region[]> {
  const regions: Region[] = [];
  for (let index = 0; index < count; index++) regions.push(await app.create({ byte_size: 1 }));
  return regions;
}

export const fullCases: readonly FullCase[] = [
  {
    operationId: "createRegion",
    code: "out-of-shared-memory",
    provoke: (app, tmpfs) => {
      tmpfs.fill();
      return askInVain(app, "POST", "/v1/regions", { byte_size: 1, ttl_ms: 1000 });
    },
  },
  {
    operationId: "createRegion",
    code: "out-of-inodes",
    provoke: (app, tmpfs) => {
      tmpfs.fillInodes(0);
      return askInVain(app, "POST", "/v1/regions", { byte_size: 1, ttl_ms: 1000 });
    },
  },
  {
    operationId: "changeRegion",
    code: "out-of-shared-memory",
    provoke: async (app, tmpfs) => {
      const { id } = await app.create();
      return untilRefused(app, tmpfs, () => app.request("PATCH", `/v1/regions/${id}`, { ttl_ms: 1_000_000 }));
    },
  },
  {
    operationId: "changeRegionByName",
    code: "out-of-shared-memory",
    provoke: async (app, tmpfs) => {
      await app.create({ name: "weights" });
      const path = "/v1/models/default/regions/weights";
      return untilRefused(app, tmpfs, () => app.request("PATCH", path, { ttl_ms: 1_000_000 }));
    },
  },
  {
    operationId: "sealRegion",
    code: "out-of-shared-memory",
    provoke: async (app, tmpfs) => {
      const regions = await createMany(app, attempts);
      return untilRefused(app, tmpfs, (attempt) => app.request("POST", `/v1/regions/${regions[attempt]?.id}/seal`, {}));
    },
  },
  {
    operationId: "writeData",
    code: "out-of-shared-memory",
    provoke: async (app, tmpfs) => {
      // A worker gave the pages up that were allocated for it, and somebody else took them.
      const byteSize = 64 * 1024;
      const { id, storage } = await app.create({ byte_size: byteSize });
      truncateSync(storage.path, 0);
      truncateSync(storage.path, storage.byte_size);
      tmpfs.fill();
      return await writeBytes(app, id, new Uint8Array(byteSize));
    },
  },
  {
    operationId: "deleteRegion",
    code: "out-of-shared-memory",
    provoke: async (app, tmpfs) => {
      // One that nobody maps would go all the same: its own pages make room for its row.
      const regions = await createMany(app, attempts);
      using leases = new DisposableStack();
      for (const { storage } of regions) leases.use(lease(storage.path));
      return await untilRefused(app, tmpfs, (attempt) => app.request("DELETE", `/v1/regions/${regions[attempt]?.id}`));
    },
  },
  {
    operationId: "deleteRegionByName",
    code: "out-of-shared-memory",
    provoke: async (app, tmpfs) => {
      using leases = new DisposableStack();
      for (let version = 0; version < attempts; version++) {
        leases.use(lease((await app.create({ byte_size: 1, name: "weights", version: `${version}` })).storage.path));
      }
      return await untilRefused(app, tmpfs, () => app.request("DELETE", "/v1/models/default/regions/weights"));
    },
  },
  {
    operationId: "registerModel",
    code: "out-of-shared-memory",
    provoke: (app, tmpfs) =>
      untilRefused(app, tmpfs, (attempt) => app.request("POST", "/v1/models", { name: `model-${attempt}` })),
  },
  {
    operationId: "changeModel",
    code: "out-of-shared-memory",
    provoke: async (app, tmpfs) => {
      await app.register("llama");
      return untilRefused(app, tmpfs, () => app.request("PATCH", "/v1/models/llama", { memory_limit_bytes: MiB }));
    },
  },
  {
    operationId: "unregisterModel",
    code: "out-of-shared-memory",
    provoke: async (app, tmpfs) => {
      for (let index = 0; index < attempts; index++) await app.register(`model-${index}`);
      return untilRefused(app, tmpfs, (attempt) => app.request("DELETE", `/v1/models/model-${attempt}`));
    },
  },
];
