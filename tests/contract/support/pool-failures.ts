/** Each failure that an operation of elastic pools declares and that needs a world of its own. */

import { closeSync } from "node:fs";
import type { DevicePages } from "../../../src/cuda/device-pages.ts";
import { DeviceStorage } from "../../../src/cuda/device-storage.ts";
import { type FailureCode, TensordError } from "../../../src/memory/error.ts";
import { GiB } from "../../../src/memory/limits.ts";
import { fakeDevice } from "../../conformance/support/fake-device.ts";
import type { AppOptions, TestApp } from "../../harness/app.ts";
import { askInVain, type FailureCase, type FullCase } from "./failure-case.ts";
import { attempts, untilRefused } from "./full-failures.ts";
import { makePool, mapAt, pagesBytes, poolPath, poolSize, withPools } from "./pools.ts";
import { goodRequest, unknownSession } from "./requests.ts";

const page = pagesBytes;
const size = { virtual_capacity: poolSize, page_size: page };

/** As long as a driver has not answered. */
const awaiting: AppOptions = {
  storages: () => ({
    storages: [],
    awaited: { reason: "the driver has not answered", found: new Promise<never>(() => {}) },
  }),
};

/** Asked of the pool, or to make it. */
function of(
  operationId: string,
  code: FailureCode,
  [method, more, body]: readonly [method: string, more: string, body?: object],
  prepare: (app: TestApp) => Promise<unknown> = makePool,
  options: AppOptions = withPools,
): FailureCase {
  const provoke = async (app: TestApp) => {
    await prepare(app);
    return askInVain(app, method, `${poolPath()}${more}`, body);
  };
  return { operationId, code, options, provoke };
}

const nothing = async () => {};
const map = (body: object) => ["POST", "/map", body] as const;
/** Asked for by its name, the pool of a device comes into the books of the model. */
const inBooks = async ({ store }: TestApp) => store.books.model("default").pools.get(fakeDevice.uuid);

/** Of all that is asked of a pool, where there is none. */
const absentCases = (
  [
    ["getElasticPool", "GET", ""],
    ["changeElasticPool", "PATCH", "", { maximum_bytes: page }],
    ["deleteElasticPool", "DELETE", ""],
    ["mapPages", "POST", "/map", { byte_size: page }],
    ["unmapPages", "POST", "/unmap", { byte_offset: 0, byte_size: page }],
    ["trimPool", "POST", "/trim"],
    ["compactPool", "POST", "/compact"],
  ] as const
).map(([operationId, ...request]) => of(operationId, "vmm-pool-not-found", request, nothing));

const stoppingCases = ["createElasticPool", "mapPages", "unmapPages", "trimPool", "compactPool"].map(
  (operationId): FailureCase => ({
    operationId,
    code: "shutting-down",
    options: withPools,
    provoke: async (app) => {
      const { method, path, body } = await goodRequest(app, operationId);
      app.store.stop();
      return askInVain(app, method, path, body);
    },
  }),
);

/** The pages of the device, to be broken. */
function devicePages({ store }: TestApp): DevicePages {
  const storage = [...store.storages.all].find((each) => each instanceof DeviceStorage);
  if (storage === undefined) throw new Error("the app has no device");
  return storage.pages;
}

/** Refused because the driver does, for a reason of its own. */
function byDriver(code: FailureCode): FailureCase {
  return of("mapPages", code, map({ byte_size: page }), async (app) => {
    await makePool(app);
    devicePages(app).create = () =>
      Promise.reject(new TensordError(code, "Cannot go on: the test says so", { hint: "Ask again." }));
  });
}

/** Refused because the device cannot be used, or not yet. */
function withheld(operationId: "createElasticPool" | "mapPages", isForNow: boolean): FailureCase {
  const request = operationId === "mapPages" ? map({ byte_size: page }) : (["PUT", "", size] as const);
  return of(operationId, isForNow ? "not-ready" : "storage-unavailable", request, async (app) => {
    if (operationId === "mapPages") await makePool(app);
    devicePages(app).device.withhold({ reason: "the test says so", isForNow });
  });
}

/** A worker that is attached. */
async function withWorker(app: TestApp): Promise<void> {
  await makePool(app);
  await mapAt(app, page, page);
  const pool = app.store.elastic.find("default", fakeDevice.uuid);
  const asked = { slot: undefined, taken: [], agreesToMoves: false, session: null, client: "trainer" };
  app.store.elastic.attachWorker(pool, asked);
}

export const poolCases: readonly FailureCase[] = [
  ...absentCases,
  ...stoppingCases,
  of("createElasticPool", "device-not-found", ["PUT", "", size], nothing, {}),
  of("createElasticPool", "not-ready", ["PUT", "", size], nothing, awaiting),
  of("createElasticPool", "vmm-pool-exists", ["PUT", "", { ...size, maximum_bytes: page }]),
  of("createElasticPool", "invalid-page-size", ["PUT", "", { ...size, page_size: page + 1 }], nothing),
  of("createElasticPool", "out-of-range", ["PUT", "", { ...size, virtual_capacity: page + 1 }], nothing),
  of("createElasticPool", "pool-full", ["PUT", "", { virtual_capacity: GiB, minimum_bytes: GiB }], inBooks),
  of("changeElasticPool", "out-of-range", ["PATCH", "", { minimum_bytes: 2 * poolSize }]),
  of("changeElasticPool", "pool-full", ["PATCH", "", { minimum_bytes: GiB }], (app) =>
    makePool(app, { virtual_capacity: 2 * GiB }),
  ),
  of("getElasticPool", "validation-failed", ["GET", "?byte_offset=here"]),
  of("getElasticPool", "out-of-range", ["GET", "?byte_offset=1"]),
  of("mapPages", "out-of-range", map({ byte_size: 2 * poolSize })),
  of("mapPages", "already-mapped", map({ byte_size: page, byte_offset: 0 }), async (app) => {
    await makePool(app);
    await mapAt(app, 0, page);
  }),
  of("mapPages", "session-not-found", map({ byte_size: page, session: unknownSession })),
  of("mapPages", "pool-full", map({ byte_size: 2 * page }), (app) => makePool(app, { maximum_bytes: page })),
  byDriver("out-of-device-memory"),
  byDriver("io-error"),
  byDriver("deadline-exceeded"),
  withheld("createElasticPool", true),
  withheld("createElasticPool", false),
  withheld("mapPages", true),
  withheld("mapPages", false),
  of("unmapPages", "out-of-range", ["POST", "/unmap", { byte_offset: 1, byte_size: page }]),
  of("unmapPages", "not-mapped", ["POST", "/unmap", { byte_offset: 0, byte_size: page }]),
  of("deleteElasticPool", "in-use", ["DELETE", ""], withWorker),
  of("compactPool", "in-use", ["POST", "/compact"], withWorker),
  ...(["createElasticPool", "changeElasticPool", "mapPages"] as const).map(
    (operationId): FailureCase => ({
      operationId,
      code: "model-limit-exceeded",
      options: withPools,
      provoke: async (app) => {
        const limits = [{ pool: fakeDevice.uuid, limit_bytes: page }];
        await app.ok(201, "POST", "/v1/models", { name: "small", limits });
        const path = poolPath("small");
        if (operationId === "createElasticPool") {
          return askInVain(app, "PUT", path, { ...size, minimum_bytes: 2 * page });
        }
        await makePool(app, {}, "small");
        if (operationId === "changeElasticPool") return askInVain(app, "PATCH", path, { minimum_bytes: 2 * page });
        return askInVain(app, "POST", `${path}/map`, { byte_size: 2 * page });
      },
    }),
  ),
];

/**
 * Pools of as many models as are asked in vain, each with two pages, of which a worker, if there is one, has the first.
 * @returns the workers' ends.
 */
async function makeMany(app: TestApp, isAttached: boolean): Promise<Disposable> {
  const workers = new DisposableStack();
  for (let index = 0; index < attempts; index++) {
    const model = `model-${index}`;
    await app.register(model);
    await makePool(app, {}, model);
    await app.ok(200, "POST", `${poolPath(model)}/map`, { byte_offset: page, byte_size: 2 * page });
    if (!isAttached) continue;
    const pool = app.store.elastic.find(model, fakeDevice.uuid);
    const asked = { slot: undefined, taken: [], agreesToMoves: true, session: null, client: null };
    const { worker, slotFd } = app.store.elastic.attachWorker(pool, asked);
    const { descriptors } = await app.store.elastic.take(worker, [[1, 1]]);
    for (const fd of descriptors) closeSync(fd);
    if (slotFd !== undefined) workers.adopt(slotFd, closeSync);
  }
  return workers;
}

function inFull(operationId: string, method: string, more: string, body?: object): FullCase {
  return {
    operationId,
    code: "out-of-shared-memory",
    provoke: async (app, tmpfs) => {
      using _workers = await makeMany(app, operationId !== "deleteElasticPool");
      return await untilRefused(app, tmpfs, (attempt) =>
        app.request(method, `${poolPath(`model-${attempt}`)}${more}`, body),
      );
    },
  };
}

export const fullPoolCases: readonly FullCase[] = [
  inFull("changeElasticPool", "PATCH", "", { maximum_bytes: poolSize }),
  inFull("mapPages", "POST", "/map", { byte_size: page }),
  inFull("compactPool", "POST", "/compact"),
  inFull("trimPool", "POST", "/trim"),
  inFull("deleteElasticPool", "DELETE", ""),
  {
    operationId: "createElasticPool",
    code: "out-of-shared-memory",
    provoke: async (app, tmpfs) => {
      for (let index = 0; index < attempts; index++) {
        await app.register(`model-${index}`);
        app.store.books.model(`model-${index}`).pools.get(fakeDevice.uuid);
      }
      return untilRefused(app, tmpfs, (attempt) => app.request("PUT", poolPath(`model-${attempt}`), size));
    },
  },
];
