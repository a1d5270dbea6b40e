/** Each failure that an operation on groups declares. It is the second member that fails, and the first that stays as it was. */

import { expect } from "bun:test";
import { limits } from "../../../src/memory/limits.ts";
import { deleteRegion } from "../../../src/memory/regions/delete.ts";
import type { Answer, Region } from "../../harness/answers.ts";
import type { TestApp } from "../../harness/app.ts";
import { askInVain, type FailureCase, type FullCase } from "./failure-case.ts";
import { attempts, untilRefused } from "./full-failures.ts";
import { Intruder, lease } from "./lease.ts";
import { idInState, slowBytes } from "./region-failures.ts";
import { unknownRegion } from "./requests.ts";

export function sealGroup(app: TestApp, ids: readonly string[], more: object = {}): Promise<Answer> {
  return app.request("POST", "/v1/seal", { regions: ids.map((region) => ({ region })), ...more });
}

/** Seals a group whose second member is to be refused. Neither is sealed, and the answer says which it was. */
async function sealInVain(app: TestApp, id: string, more: object = {}): Promise<Answer> {
  const first = await app.create();
  const answer = await sealGroup(app, [first.id, id], more);
  expect(answer.body).toMatchObject({ detail: expect.stringContaining(id) });
  expect(await app.get(first.id)).toMatchObject({ state: "open", revision: first.revision });
  return answer;
}

/** What happens at the first step of a seal, in between two members. */
let meanwhile: (() => void) | undefined;
const options: FailureCase["options"] = {
  onStep(step) {
    if (step !== "seal.mode-set") return;
    meanwhile?.();
    meanwhile = undefined;
  },
};

export const groupCases: readonly FailureCase[] = [
  {
    operationId: "sealGroup",
    code: "region-not-found",
    provoke: (app) => sealInVain(app, unknownRegion),
  },
  {
    operationId: "sealGroup",
    code: "region-sealed",
    provoke: async (app) => sealInVain(app, (await app.seal((await app.create()).id)).id),
  },
  {
    operationId: "sealGroup",
    code: "region-draining",
    provoke: async (app) => {
      const { id, storage } = await app.create();
      using _ = lease(storage.path);
      await app.remove(id);
      return await sealInVain(app, id);
    },
  },
  {
    operationId: "sealGroup",
    code: "region-busy",
    provoke: async (app) => {
      const creation = app.create({ byte_size: slowBytes });
      const answer = await sealInVain(app, await idInState(app, "creating"));
      await creation;
      return answer;
    },
  },
  {
    operationId: "sealGroup",
    code: "region-has-writers",
    provoke: async (app) => {
      const { id, storage } = await app.create();
      using _ = lease(storage.path, "write");
      return await sealInVain(app, id);
    },
  },
  {
    operationId: "sealGroup",
    code: "revision-mismatch",
    provoke: async (app) => {
      const [first, second] = [await app.create(), await app.create()];
      const regions = [
        { region: first.id, revision: first.revision },
        { region: second.id, revision: second.revision + 1 },
      ];
      const answer = await askInVain(app, "POST", "/v1/seal", { regions });
      expect(answer.body).toMatchObject({ detail: expect.stringContaining(second.id) });
      return answer;
    },
  },
  {
    operationId: "sealGroup",
    code: "cancelled",
    options,
    provoke: async (app) => {
      const { id } = await app.create();
      meanwhile = () => void deleteRegion(app.store, app.store.books.region(id), "request");
      return sealInVain(app, id);
    },
  },
  {
    operationId: "sealGroup",
    code: "io-error",
    provoke: async (app) => {
      const { id, storage } = await app.create();
      using intruder = new Intruder(storage.path);
      intruder.truncate(storage.byte_size - 1);
      return await sealInVain(app, id);
    },
  },
  {
    operationId: "sealGroup",
    code: "shutting-down",
    options,
    provoke: async (app) => {
      const ids = [(await app.create()).id, (await app.create()).id];
      meanwhile = () => app.store.stop();
      return sealGroup(app, ids);
    },
  },
  {
    operationId: "openGroup",
    code: "model-not-found",
    provoke: (app) => askInVain(app, "POST", "/v1/open", { model: "nobody", names: ["weights"] }),
  },
  {
    operationId: "openGroup",
    code: "region-not-found",
    provoke: async (app) => {
      await app.create({ name: "shard-0" });
      const answer = await askInVain(app, "POST", "/v1/open", { names: ["shard-0", "shard-1"] });
      expect(answer.body).toMatchObject({ detail: expect.stringContaining('"shard-1"') });
      return answer;
    },
  },
  {
    operationId: "openGroup",
    code: "too-many-requests",
    provoke: async (app) => {
      const stop = new AbortController();
      const waiting = Array.from({ length: limits.waiters }, () =>
        app.store.waiters.wait("default", "other", 60_000, stop.signal).catch(() => {}),
      );
      const answer = await openWaiting(app);
      stop.abort();
      await Promise.all(waiting);
      return answer;
    },
  },
  {
    operationId: "openGroup",
    code: "shutting-down",
    provoke: (app) => {
      const answer = openWaiting(app);
      setTimeout(() => app.store.stop());
      return answer;
    },
  },
];

export const fullGroupCases: readonly FullCase[] = [
  {
    operationId: "sealGroup",
    code: "out-of-shared-memory",
    provoke: async (app, tmpfs) => {
      const regions: Region[] = [];
      for (let index = 0; index < 2 * attempts; index++) regions.push(await app.create({ byte_size: 1 }));
      const ids = regions.map(({ id }) => id);
      return untilRefused(app, tmpfs, (attempt) => sealGroup(app, ids.slice(2 * attempt, 2 * attempt + 2)));
    },
  },
];

function openWaiting(app: TestApp): Promise<Answer> {
  return app.request("POST", "/v1/open", { names: ["weights"] }, { headers: { prefer: "wait=60" } });
}
