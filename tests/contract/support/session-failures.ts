/** Each failure of sessions, claims, leases, eviction and waiting that needs a world of its own. */

import { linkSync } from "node:fs";
import { limits, MiB } from "../../../src/memory/limits.ts";
import { createToken } from "../../../src/memory/naming.ts";
import { enterRequestedLease } from "../../../src/memory/regions/requested-lease.ts";
import { enterSession } from "../../../src/memory/sessions/sessions.ts";
import { type TestApp, until } from "../../harness/app.ts";
import { askInVain, type FailureCase, type FullCase } from "./failure-case.ts";
import { attempts, untilRefused } from "./full-failures.ts";
import { lease } from "./lease.ts";
import { idInState, slowBytes } from "./region-failures.ts";
import { unknownClaim, unknownSession } from "./requests.ts";
import { claimName, claimPath, openSession, takeLease } from "./sessions.ts";

const leaseBody = { ttl_ms: 60_000 };

/** What a server that stops refuses, though nothing is wrong with it. */
const whileStopping: readonly FailureCase[] = [
  whenStopped("openSession", "/v1/sessions", () => ({})),
  whenStopped("claimName", claimPath, async (app) => ({ session: (await openSession(app)).id })),
  whenStopped("evict", "/v1/evict", () => ({ bytes: 1 })),
  {
    operationId: "takeLease",
    code: "shutting-down",
    provoke: async (app) => {
      const { id } = await app.create();
      app.store.stop();
      return askInVain(app, "POST", `/v1/regions/${id}/leases`, leaseBody);
    },
  },
];

function whenStopped(
  operationId: string,
  path: string,
  toBody: (app: TestApp) => object | Promise<object>,
): FailureCase {
  return {
    operationId,
    code: "shutting-down",
    provoke: async (app) => {
      const body = await toBody(app);
      app.store.stop();
      return askInVain(app, "POST", path, body);
    },
  };
}

/** What the most that may stand at once is reached by. They are entered beside the store, which has limits of its own. */
const tooMany: readonly FailureCase[] = [
  {
    operationId: "openSession",
    code: "too-many-requests",
    provoke: (app) => {
      for (let key = 1; key <= limits.sessions; key++) enterSession(app.store, toSessionRecord(key));
      return askInVain(app, "POST", "/v1/sessions", {});
    },
  },
  {
    operationId: "claimName",
    code: "too-many-requests",
    provoke: async (app) => {
      const { id } = await openSession(app);
      const session = app.store.books.session(id);
      for (let count = 0; count < limits.claims; count++) {
        const claimed = { model: "default", name: `name-${count}`, version: "" };
        app.store.claims.add({ token: createToken(), ...claimed, session, key: null, rebuilds: null, built: null });
      }
      const answer = await askInVain(app, "POST", claimPath, { session: id });
      session.claims.clear();
      return answer;
    },
  },
  {
    operationId: "takeLease",
    code: "too-many-requests",
    provoke: async (app) => {
      const { id } = await app.create();
      const region = app.store.books.region(id);
      for (let count = 0; count < limits.leases; count++) {
        enterRequestedLease(app.store, {
          key: app.store.requestedLeases.nextKey(),
          token: createToken(),
          region,
          createdBy: null,
          session: null,
          ttlMs: limits.sessionTtlMaxMs,
        });
      }
      return askInVain(app, "POST", `/v1/regions/${id}/leases`, leaseBody);
    },
  },
  {
    operationId: "createRegion",
    code: "too-many-requests",
    provoke: async (app) => {
      const request = await fillSmallModel(app);
      const model = app.store.books.model("small");
      const waiting = {
        model,
        poolName: "host",
        session: null,
        bytes: MiB,
        listBytes: 0,
        onFull: "wait",
        deadline: 0,
        hasTurn: false,
        actor: undefined,
      } as const;
      for (let count = 0; count < limits.waiters; count++) app.store.room.add({ ...waiting, wake: () => {} });
      return askInVain(app, "POST", "/v1/regions", { ...request, on_full: "wait" });
    },
  },
];

function toSessionRecord(key: number) {
  const facts = {
    name: null,
    client: null,
    quotaBytes: null,
    ttlMs: limits.sessionTtlMaxMs,
    createdAt: 0,
    createdBy: null,
  };
  return { ...facts, key, token: createToken() };
}

/** A model without room for the region that it gives the request of. */
async function fillSmallModel(app: TestApp): Promise<object> {
  await app.register("small", MiB);
  await app.create({ model: "small", byte_size: MiB / 2 });
  return { model: "small", byte_size: MiB / 2, ttl_ms: 60_000 };
}

const creations: readonly FailureCase[] = [
  {
    operationId: "createRegion",
    code: "session-not-found",
    provoke: (app) => askInVain(app, "POST", "/v1/regions", { byte_size: 1, session: unknownSession }),
  },
  {
    operationId: "createRegion",
    code: "claim-not-found",
    provoke: (app) =>
      askInVain(app, "POST", "/v1/regions", { name: "weights", byte_size: 1, ttl_ms: 1000, claim: unknownClaim }),
  },
  {
    operationId: "createRegion",
    code: "name-claimed",
    provoke: async (app) => {
      await claimName(app, await openSession(app));
      return askInVain(app, "POST", "/v1/regions", { name: "weights", byte_size: 1, ttl_ms: 1000 });
    },
  },
  {
    operationId: "createRegion",
    code: "session-quota-exceeded",
    provoke: async (app) => {
      const { id } = await openSession(app, { quota_bytes: 4096 });
      return askInVain(app, "POST", "/v1/regions", { byte_size: 1, session: id });
    },
  },
  {
    operationId: "createRegion",
    code: "deadline-exceeded",
    provoke: async (app) => {
      const request = await fillSmallModel(app);
      return askInVain(app, "POST", "/v1/regions", { ...request, on_full: "wait", deadline_ms: 1 });
    },
  },
];

const leases: readonly FailureCase[] = [
  {
    operationId: "takeLease",
    code: "session-not-found",
    provoke: async (app) => {
      const body = { ...leaseBody, session: unknownSession };
      return askInVain(app, "POST", `/v1/regions/${(await app.create()).id}/leases`, body);
    },
  },
  {
    operationId: "takeLease",
    code: "region-busy",
    provoke: async (app) => {
      const creation = app.create({ byte_size: slowBytes });
      const answer = await app.request("POST", `/v1/regions/${await idInState(app, "creating")}/leases`, leaseBody);
      await creation;
      return answer;
    },
  },
  {
    operationId: "takeLease",
    code: "region-draining",
    provoke: async (app) => {
      const { id, storage } = await app.create();
      using _ = lease(storage.path);
      await app.remove(id);
      return await askInVain(app, "POST", `/v1/regions/${id}/leases`, leaseBody);
    },
  },
];

const others: readonly FailureCase[] = [
  {
    operationId: "claimName",
    code: "session-not-found",
    provoke: (app) => askInVain(app, "POST", claimPath, { session: unknownSession }),
  },
  {
    operationId: "evict",
    code: "model-not-found",
    provoke: (app) => askInVain(app, "POST", "/v1/evict", { bytes: 1, model: "nobody" }),
  },
];

export const sessionCases: readonly FailureCase[] = [...whileStopping, ...tooMany, ...creations, ...leases, ...others];

export const fullSessionCases: readonly FullCase[] = [
  {
    operationId: "openSession",
    code: "out-of-shared-memory",
    provoke: (app, tmpfs) => untilRefused(app, tmpfs, () => app.request("POST", "/v1/sessions", {})),
  },
  {
    operationId: "endSession",
    code: "out-of-shared-memory",
    provoke: async (app, tmpfs) => {
      using mapped = new DisposableStack();
      const sessions: string[] = [];
      for (let index = 0; index < attempts; index++) {
        const { id } = await openSession(app);
        // One that nobody maps would go all the same: its own pages make room for its row.
        mapped.use(lease((await app.create({ session: id })).storage.path));
        sessions.push(id);
      }
      return await untilRefused(app, tmpfs, (attempt) => app.request("DELETE", `/v1/sessions/${sessions[attempt]}`));
    },
  },
  {
    operationId: "claimName",
    code: "out-of-shared-memory",
    provoke: async (app, tmpfs) => {
      const { id } = await openSession(app);
      const path = (attempt: number) => `/v1/models/default/regions/name-${attempt}/claim`;
      return untilRefused(app, tmpfs, (attempt) => app.request("POST", path(attempt), { session: id }));
    },
  },
  {
    operationId: "releaseClaim",
    code: "out-of-shared-memory",
    provoke: async (app, tmpfs) => {
      const { id } = await openSession(app);
      const paths: string[] = [];
      for (let index = 0; index < attempts; index++) {
        const path = `/v1/models/default/regions/name-${index}/claim`;
        const { claim } = await app.ok<{ claim: string }>(200, "POST", path, { session: id });
        paths.push(`${path}?claim=${claim}`);
      }
      return untilRefused(app, tmpfs, (attempt) => app.request("DELETE", paths[attempt] ?? ""));
    },
  },
  {
    operationId: "takeLease",
    code: "out-of-shared-memory",
    provoke: async (app, tmpfs) => {
      const { id } = await app.create();
      return untilRefused(app, tmpfs, () => app.request("POST", `/v1/regions/${id}/leases`, leaseBody));
    },
  },
  {
    operationId: "endLease",
    code: "out-of-shared-memory",
    provoke: async (app, tmpfs) => {
      const { id } = await app.create();
      const taken: string[] = [];
      for (let index = 0; index < attempts; index++) taken.push((await takeLease(app, id)).id);
      return untilRefused(app, tmpfs, (attempt) => app.request("DELETE", `/v1/leases/${taken[attempt]}`));
    },
  },
  {
    operationId: "evict",
    code: "out-of-shared-memory",
    provoke: async (app, tmpfs) => {
      for (let index = 0; index < attempts; index++) {
        const { id, storage } = await app.create({ evictable: true });
        await app.seal(id);
        // One that nothing else links would go all the same: its own pages make room for its row.
        linkSync(storage.path, `${tmpfs.path}/link-${index}`);
        app.store.books.region(id).lastUsedAt = 0;
      }
      // What was refused drains all the same; only that it goes on draining after a crash is not promised.
      return until("an eviction is refused", async () => {
        tmpfs.fill();
        const answer = await app.request("POST", "/v1/evict", { bytes: 1 });
        return answer.status < 400 ? undefined : answer;
      });
    },
  },
];
