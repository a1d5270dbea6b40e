/** Who may do what: each cell of the table in docs/access.md, asked for over a real store by tokens of a real file. */

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { accessPath, withRightsTable } from "../../scripts/access.ts";
import {
  cellOf,
  limitedRoles,
  operations as rightOperations,
  type Whose,
  whose,
} from "../../src/routes/access/cells.ts";
import { isOperation, may, type Operation, openOperations, reachOf } from "../../src/routes/access/rights.ts";
import { type Answer, operations, toAnswer } from "../harness/answers.ts";
import { TestApp } from "../harness/app.ts";
import { clearApp } from "../harness/lent-app.ts";
import { tokenOf } from "../harness/tokens-file.ts";
import { withPools } from "./support/pools.ts";
import { goodRequest, type PlainRequest } from "./support/requests.ts";
import { openSession } from "./support/sessions.ts";

/** One and the same name as three roles: what an administrator called `trainer` makes is `trainer`'s own. */
const lines = [
  { name: "trainer", role: "admin", token: tokenOf("trainer-admin") },
  { name: "trainer", role: "worker", token: tokenOf("worker") },
  { name: "trainer", role: "reader", token: tokenOf("reader") },
  { name: "trainer", role: "worker", token: tokenOf("held-worker"), models: ["elsewhere"] },
  { name: "trainer", role: "reader", token: tokenOf("held-reader"), models: ["elsewhere"] },
  { name: "somebody", role: "admin", token: tokenOf("somebody") },
];

/** What is not asked as the operation alone would be. */
const parts: Readonly<Record<string, (app: TestApp, asker: string) => Promise<PlainRequest>>> = {
  // A claim of a name whose region is another's, in a session of the one who asks.
  claimName: async (app, asker) => {
    await app.seal((await app.create({ name: "weights" })).id);
    app.token = tokenOf(asker);
    const { id: session } = await openSession(app);
    return { method: "POST", path: "/v1/models/default/regions/weights/claim", body: { session } };
  },
  holdSession: async (app) => ({ method: "GET", path: `/v1/sessions/${(await openSession(app)).id}/hold` }),
  replaceRegion: async (app) => {
    await app.create({ name: "weights" });
    return {
      method: "POST",
      path: "/v1/regions",
      body: { name: "weights", byte_size: 64, ttl_ms: 60_000, if_exists: "replace" },
    };
  },
};
const ofBroker: readonly Operation[] = ["attachRegion", "attachRegionForWriting", "attachToElasticPool"];
const asked = rightOperations.filter((operation) => !ofBroker.includes(operation));

/** What the maker made, asked for by another token; everything is taken away again. */
async function ask(app: TestApp, operation: Operation, maker: string, asker: string): Promise<Answer> {
  app.token = tokenOf(maker);
  const { method, path, body } = await (parts[operation]?.(app, asker) ?? goodRequest(app, operation));
  app.token = tokenOf(asker);
  // The document has no WebSockets to hold an answer against.
  const answer = await (operation === "holdSession" ? askOutside(app, path) : app.request(method, path, body));
  app.token = tokenOf("somebody");
  await clearApp(app);
  return answer;
}

async function askOutside(app: TestApp, path: string): Promise<Answer> {
  const headers = { authorization: `Bearer ${app.token}` };
  return toAnswer(await app.app.fetch(new Request(`http://localhost${path}`, { headers }), {}));
}

/** A hold that may be is refused for being no WebSocket's handshake, which a request without a connection is not. */
function isDone({ status, body }: Answer): boolean {
  return status < 300 || (body as { code?: string }).code === "upgrade-required";
}

function withOneApp(): () => TestApp {
  let app: TestApp | undefined;
  beforeAll(async () => {
    app = await TestApp.open({ ...withPools, tokens: lines });
  });
  afterAll(async () => await app?.close());
  return () => app as TestApp;
}

for (const role of limitedRoles) {
  for (const theirs of whose) {
    describe(`a ${role}, of what is ${theirs}`, () => {
      const app = withOneApp();
      for (const operation of asked) {
        const cell = cellOf(operation, role, theirs);
        test(`${operation}: ${cell}`, async () => {
          const answer = await ask(app(), operation, makerOf(theirs), role);
          if (cell !== "no") return expect({ ...answer, done: isDone(answer) }).toMatchObject({ done: true });
          expect(answer.body).toMatchObject({
            code: expect.stringMatching(/^(forbidden|session-not-found|claim-not-found)$/),
            hint: expect.any(String),
          });
        });
      }
    });
  }
}

function makerOf(theirs: Whose): string {
  return theirs === "own" ? "trainer-admin" : "somebody";
}

describe("an admin, of what is another's", () => {
  const app = withOneApp();
  for (const operation of asked) {
    test(`${operation}: yes`, async () => {
      const answer = await ask(app(), operation, "somebody", "trainer-admin");
      expect({ ...answer, done: isDone(answer) }).toMatchObject({ done: true });
    });
  }
});

for (const role of limitedRoles) {
  describe(`a ${role} that is held to another model, of what its own name made`, () => {
    const app = withOneApp();
    for (const operation of asked) {
      const reach = reachOf({ role }, operation);
      const ofModel = operation !== "releaseClaim" && /Session/.test(operation) === false;
      const isRefused = reach === "none" || reach === "every-model" || (reach !== "any" && ofModel);
      if (operation === "releaseClaim") continue;
      test(`${operation}: ${isRefused ? "no" : "yes"}`, async () => {
        const answer = await ask(app(), operation, "trainer-admin", `held-${role}`);
        if (!isRefused) return expect({ ...answer, done: isDone(answer) }).toMatchObject({ done: true });
        expect(answer.body).toMatchObject({
          code: expect.stringMatching(/^(forbidden|region-not-found|lease-not-found|operation-not-found)$/),
        });
      });
    }
  });
}

describe("through the broker, which hands out descriptors", () => {
  for (const role of limitedRoles) {
    for (const theirs of whose) {
      for (const operation of ofBroker) {
        const cell = cellOf(operation, role, theirs);
        test(`${operation} by a ${role} of what is ${theirs}: ${cell}`, () => {
          const caller = { name: "trainer", role, models: null };
          const subject = { model: "default", createdBy: theirs === "own" ? "trainer" : "somebody" };
          expect(may(caller, operation, subject)).toBe(cell === "yes");
          expect(may({ ...caller, models: new Set(["elsewhere"]) }, operation, subject)).toBeFalse();
        });
      }
    }
  }
});

test("the table of docs/access.md is the code's", () => {
  const text = readFileSync(accessPath, "utf8");
  expect(text).toBe(withRightsTable(text));
});

test("every operation of the document has its right, or needs none", () => {
  const without = operations.filter(({ operationId }) => !isOperation(operationId) && !openOperations.has(operationId));
  expect(without).toEqual([]);
});
