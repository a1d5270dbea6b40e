/** Every failure that an operation declares is provoked, and answered as the document says. */

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { FailureCode } from "../../src/memory/error.ts";
import { failures } from "../../src/memory/error.ts";
import { openOperations } from "../../src/routes/access/rights.ts";
import { createApp } from "../../src/routes/app.ts";
import type { Services } from "../../src/routes/environment.ts";
import { type Answer, checkAnswer, declaredCodes, operations, type Problem, toAnswer } from "../harness/answers.ts";
import { TestApp, withApp } from "../harness/app.ts";
import { LentApps } from "../harness/lent-app.ts";
import { tokenOf } from "../harness/tokens-file.ts";
import { dataCases } from "./support/data-failures.ts";
import { deviceCases } from "./support/device-failures.ts";
import { eventCases } from "./support/event-failures.ts";
import {
  bodyCases,
  conditionCases,
  missingCases,
  parameterCases,
  queryCases,
  strayBodyCases,
} from "./support/failure-case.ts";
import { fullCases } from "./support/full-failures.ts";
import { fullGroupCases, groupCases } from "./support/group-failures.ts";
import { loadCases } from "./support/load-failures.ts";
import { modelCases } from "./support/model-failures.ts";
import { operationCases } from "./support/operation-failures.ts";
import { fullPoolCases, poolCases } from "./support/pool-failures.ts";
import { regionCases } from "./support/region-failures.ts";
import { bareRequest, goodRequest, goodRequests, optionsFor } from "./support/requests.ts";
import { fullSessionCases, sessionCases } from "./support/session-failures.ts";
import { noMountBecause, SmallTmpfs, smallTmpfsBytes } from "./support/small-tmpfs.ts";
import { openTcp } from "./support/socket.ts";

/** Declared pairs that no case provokes, each with its reason. */
const exempt: Readonly<Record<string, string>> = {
  "getIndex internal": "it reads nothing, so that nothing it could ask can be broken",
  "getIndex out-of-descriptors": "it opens nothing",
  "getIndex unauthorized": "it needs no token",
  "getIndex too-many-requests": "as it needs no token, nobody's rate is asked",
  "isLive internal": "it reads nothing, so that nothing it could ask can be broken",
  "isLive out-of-descriptors": "it opens nothing",
  "isLive unauthorized": "it needs no token",
  "isLive too-many-requests": "as it needs no token, nobody's rate is asked",
  "isReady unauthorized": "it needs no token",
  "isReady too-many-requests": "as it needs no token, nobody's rate is asked",
  "isReady not-ready":
    "before the app is there the health listener says so, and then what is loaded first; health.test.ts and preload.test.ts ask them",
};

const declared = operations.flatMap(({ operationId, responses }) =>
  Object.values(responses).flatMap(({ description }) =>
    declaredCodes(description).map((code) => `${operationId} ${code}`),
  ),
);
const provoked = new Set<string>();

function claim(operationId: string, code: FailureCode): string {
  provoked.add(`${operationId} ${code}`);
  return `${operationId} answers ${code}`;
}

function expectFailure(answer: Answer, code: FailureCode): void {
  expect(answer.body).toMatchObject({ code, status: failures[code].status });
}

const apps = new LentApps();
afterAll(() => apps.end());

describe("operations", () => {
  test("are all known by a request that succeeds", () => {
    expect(Object.keys(goodRequests).toSorted()).toEqual(operations.map(({ operationId }) => operationId).toSorted());
  });

  for (const { operationId } of operations) {
    test(
      `${operationId} answers a good request with success`,
      apps.with(async (app) => {
        const { method, path, body } = await goodRequest(app, operationId);
        expect((await app.request(method, path, body)).status).toBeOneOf([200, 201, 202]);
      }, optionsFor(operationId)),
    );
  }
});

describe("a declared failure of what many operations share", () => {
  for (const { operationId, code, provoke, options = optionsFor(operationId) } of [
    ...bodyCases,
    ...strayBodyCases,
    ...missingCases,
    ...parameterCases,
    ...conditionCases,
    ...queryCases,
  ]) {
    test(
      claim(operationId, code),
      apps.with(async (app) => expectFailure(await provoke(app), code), options),
    );
  }
});

describe("a declared failure", () => {
  for (const { operationId, code, provoke, options = optionsFor(operationId) } of [
    ...regionCases,
    ...deviceCases,
    ...groupCases,
    ...modelCases,
    ...eventCases,
    ...dataCases,
    ...sessionCases,
    ...operationCases,
    ...loadCases,
    ...poolCases,
  ]) {
    test(
      claim(operationId, code),
      withApp(async (app) => expectFailure(await provoke(app), code), options),
    );
  }
});

describe(`in a file system without room (${noMountBecause ?? "a small tmpfs"})`, () => {
  let tmpfs: SmallTmpfs;
  beforeAll(() => {
    if (noMountBecause === undefined) tmpfs = new SmallTmpfs();
  });
  afterAll(() => tmpfs?.[Symbol.dispose]());

  for (const { operationId, code, provoke } of [
    ...fullCases,
    ...fullGroupCases,
    ...fullSessionCases,
    ...fullPoolCases,
  ]) {
    test.skipIf(noMountBecause !== undefined)(claim(operationId, code), async () => {
      const use = withApp(
        async (app) => {
          try {
            expectFailure(await provoke(app, tmpfs), code);
          } finally {
            tmpfs.drain();
          }
        },
        { ...optionsFor(operationId), shmDirectory: tmpfs.path, memoryLimitBytes: smallTmpfsBytes },
      );
      await use();
    });
  }
});

/** A request that would succeed, to an app whose store and host fail with `cause`, whatever they are asked. */
async function askBroken(operation: (typeof operations)[number], cause: Error) {
  const heard: (string | undefined)[] = [];
  const traffic = { requests: 0, receivedBytes: 0, sentBytes: 0 };
  const onUnexpected: Services["onUnexpected"] = (_, id) => heard.push(id);
  const broken = new Proxy(
    {},
    {
      get() {
        throw cause;
      },
    },
  );
  const services = {
    store: broken,
    host: broken,
    version: "0",
    traffic,
    observe: () => {},
    onUnexpected,
  } as unknown as Services;
  const { method, path } = bareRequest(operation);
  const body =
    operation.requestBody === undefined ? {} : { body: JSON.stringify(await goodBody(operation.operationId)) };
  const headers = { "content-type": "application/json" };
  const request = new Request(`http://localhost${path}`, { method, headers, ...body });
  const answer = await toAnswer(await createApp(services).fetch(request, {}));
  checkAnswer(method, path, answer);
  return { answer, heard };
}

const goodBodies = new Map<string, Promise<unknown>>();

/** The body of a request that would succeed. */
function goodBody(operationId: string): Promise<unknown> {
  return goodBodies.getOrInsertComputed(operationId, async () => {
    const app = await TestApp.open(optionsFor(operationId));
    try {
      return (await goodRequest(app, operationId)).body;
    } finally {
      await app.close();
    }
  });
}

describe("a mistake of ours", () => {
  const secret = "the key is under the mat";

  for (const operation of operations.filter(({ operationId }) => !(`${operationId} internal` in exempt))) {
    test(`${claim(operation.operationId, "internal")} with an id and nothing of the cause`, async () => {
      const { answer, heard } = await askBroken(operation, new Error(secret));
      expectFailure(answer, "internal");
      expect(JSON.stringify(answer.body)).not.toContain(secret);
      expect(heard).toEqual([(answer.body as Problem).request_id]);
      expect(heard[0]).toBeString();
    });
  }
});

describe("what the system has no descriptor for", () => {
  const open = operations.filter(({ operationId }) => !(`${operationId} out-of-descriptors` in exempt));
  for (const [index, operation] of open.entries()) {
    // Of this process, and of the whole machine.
    const code = index % 2 === 0 ? "EMFILE" : "ENFILE";
    test(`${claim(operation.operationId, "out-of-descriptors")}, is no mistake of ours, and says what to raise`, async () => {
      const cause = Object.assign(new Error(`${code}: too many open files, open '/secret'`), { code });
      const { answer, heard } = await askBroken(operation, cause);
      expectFailure(answer, "out-of-descriptors");
      expect(answer.body).toMatchObject({ errno: code, hint: expect.stringMatching(/ulimit -n|fs\.file-max/) });
      expect(heard).toEqual([]);
    });
  }
});

describe("where a token is needed", () => {
  const closed = operations.filter(({ operationId }) => !openOperations.has(operationId));
  const tokens = [{ name: "eager", role: "admin", token: tokenOf("eager"), requests_per_second: 0.01 }];
  let app: TestApp;
  beforeAll(async () => {
    app = await TestApp.open({ tokens });
  });
  afterAll(async () => await app.close());

  for (const operation of closed) {
    const { method, path } = bareRequest(operation);

    test(`${claim(operation.operationId, "unauthorized")} to who has none`, async () => {
      const answer = await app.request(method, path);
      expectFailure(answer, "unauthorized");
      expect(answer.headers.get("www-authenticate")).toBe('Bearer realm="tensord"');
    });

    test(`${claim(operation.operationId, "too-many-requests")} to who asks more often than its line says, and says when to ask again`, async () => {
      const headers = { authorization: `Bearer ${tokenOf("eager")}` };
      await app.request(method, path, undefined, { headers });
      const answer = await app.request(method, path, undefined, { headers });
      expectFailure(answer, "too-many-requests");
      const seconds = Number(answer.headers.get("retry-after"));
      expect(seconds).toBeGreaterThanOrEqual(1);
      expect(answer.body).toMatchObject({ retry_after_seconds: seconds });
    });
  }
});

describe("a web page that found its way to the port", () => {
  let app: TestApp;
  let server: ReturnType<typeof openTcp>;
  beforeAll(async () => {
    app = await TestApp.open();
    server = openTcp(app);
  });
  afterAll(async () => {
    await server[Symbol.asyncDispose]();
    await app.close();
    expect(app.mistakes).toEqual([]);
  });

  for (const operation of operations) {
    test(claim(operation.operationId, "forbidden"), async () => {
      const { method, path } = bareRequest(operation);
      const headers = { origin: "https://evil.example" };
      const answer = await toAnswer(await fetch(server.url + path, { method, headers }));
      checkAnswer(method, path, answer);
      expectFailure(answer, "forbidden");
    });
  }
});

test("every failure that is declared is provoked, but for those with a reason", () => {
  expect(declared.filter((pair) => !provoked.has(pair) && !(pair in exempt))).toEqual([]);
});

test("every failure that is provoked is declared, and no reason stands without need", () => {
  expect([...provoked].filter((pair) => !declared.includes(pair))).toEqual([]);
  expect(Object.keys(exempt).filter((pair) => provoked.has(pair) || !declared.includes(pair))).toEqual([]);
});

test("every failure of the table is declared by an operation, but for those of no route, or that a load's own problem has", () => {
  const codes = new Set(declared.map((pair) => pair.split(" ")[1]));
  const undeclared = Object.keys(failures).filter((code) => !codes.has(code));
  expect(undeclared).toEqual([
    "route-not-found",
    "method-not-allowed",
    "unsupported-format",
    "invalid-model-file",
    "upgrade-required",
    "source-unavailable",
  ]);
});
