/**
 * SIGKILL of the server at each step of each operation that changes the books. What was acknowledged comes back as it
 * was; of the request under way there is the whole or nothing; nobody else's file is touched.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { type Step, steps } from "../../src/memory/steps.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { AcknowledgedRegions } from "../harness/instance-acknowledged.ts";
import { checkBooks, checkRows, modes } from "../harness/instance-check.ts";
import { type Content, exists, readContent, writeContent } from "../harness/instance-content.ts";
import { ForeignFiles } from "../harness/instance-foreign.ts";
import { needsPython, needsRoom, testWith } from "../harness/instance-needs.ts";
import { type KillPoint, TestServer } from "../harness/server.ts";
import { NoAnswer, type Region, type ServerApi } from "../harness/server-api.ts";
import { until } from "../harness/server-wait.ts";
import { WorkerProcess } from "../harness/worker.ts";

const MiB = 2 ** 20;
const hour = 3_600_000;

/** One operation in flight when the server dies. */
interface Scenario {
  readonly claim: string;
  /** The steps that it passes, in order; the server dies after each of them in turn. */
  readonly kills: readonly KillPoint[];
  /** Sets up what the operation works on, before the server that will die starts. */
  readonly prepare?: (api: ServerApi) => Promise<readonly Region[]>;
  readonly act: (api: ServerApi, prepared: readonly Region[]) => Promise<unknown>;
  /** Asserts on the server that came back. */
  readonly check: (api: ServerApi, before: Before) => Promise<void>;
  readonly needs?: string | undefined;
}

interface Before {
  readonly prepared: readonly Region[];
  readonly contents: readonly Content[];
  readonly step: Step;
  /** Whether the client had its answer before the server died. */
  readonly isAcknowledged: boolean;
}

const at = (...names: Step[]): KillPoint[] => names.map((step) => ({ step }));

const creating = at(
  "create.reserved",
  "create.file-made",
  "create.window-allocated",
  "create.header-written",
  "create.kept",
  "create.journaled",
  "create.published",
);
const sealing = at("seal.begun", "seal.mode-set", "seal.writers-asked", "seal.hashed", "seal.journaled");
const deleting = at(
  "delete.journaled",
  "delete.withdrawn",
  "delete.asked",
  "delete.keeper-unlinked",
  "delete.row-deleted",
);

/** Of a creation nothing is left, or the region stands as it was asked for; either way its name can be used. */
function checkCreated(byteSize: number): Scenario["check"] {
  return async (api, { step }) => {
    const found = await api.findByName("new");
    const isWhole = step === "create.journaled" || step === "create.published";
    expect(found !== undefined, `after ${step} it is ${isWhole ? "whole" : "not there"}`).toBe(isWhole);
    if (found !== undefined) {
      expect(found).toMatchObject({ state: "open", revision: 1, labels: { in: "flight" }, has_writers: false });
      expect(found.tensors).toMatchObject([{ name: "data", shape: [byteSize], byte_size: byteSize }]);
      writeContent(found, 9);
      expect((await api.seal(found.id, { checksum: true })).state).toBe("sealed");
      expect(await api.delete(found.id)).toMatchObject({ state: "deleted" });
    }
    const next = await api.create({ name: "new", byte_size: 1, ttl_ms: hour });
    expect(await api.delete(next.id)).toMatchObject({ state: "deleted" });
  };
}

function createScenario(claim: string, byteSize: number, kills: readonly KillPoint[], needs?: string): Scenario {
  return {
    claim,
    kills,
    act: (api) => api.create({ name: "new", byte_size: byteSize, persist: true, labels: { in: "flight" } }),
    check: checkCreated(byteSize),
    needs,
  };
}

function sealScenario(
  claim: string,
  byteSize: number,
  options: { checksum: boolean; stock_writable?: boolean },
): Scenario {
  return {
    claim,
    kills: sealing,
    prepare: async (api) => [await api.create({ name: "new", byte_size: byteSize, persist: true })],
    act: (api, [region]) => api.seal(region?.id ?? "", options),
    check: async (api, { prepared, contents, step }) => {
      const [region] = prepared as [Region];
      const now = await api.get(region.id);
      const isSealed = step === "seal.journaled";
      expect(now.state).toBe(isSealed ? "sealed" : "open");
      expect(now.checksum !== null).toBe(isSealed && options.checksum);
      expect(now.revision).toBe(isSealed ? region.revision + 1 : region.revision);
      const mode = isSealed ? (options.stock_writable === true ? modes.stockWritable : modes.sealed) : modes.open;
      expect(readContent(region.storage.path)).toEqual({ ...(contents[0] as Content), mode });
      if (isSealed) expect((await api.verify(region.id)).ok).toBe(options.checksum ? true : null);
      else expect((await api.seal(region.id, options)).state).toBe("sealed");
    },
  };
}

const replacing: Scenario = {
  claim: "a seal that takes a name over",
  kills: [
    ...at("seal.begun", "seal.mode-set", "seal.writers-asked", "seal.hashed", "seal.replaced-journaled"),
    ...at("delete.withdrawn", "delete.asked", "delete.keeper-unlinked", "delete.row-deleted"),
  ],
  prepare: async (api) => {
    const old = await api.create({ name: "new", byte_size: 20_000, persist: true });
    writeContent(old, 7);
    const sealed = await api.seal(old.id, { checksum: true });
    const next = await api.create({ name: "new", byte_size: 30_000, persist: true, if_exists: "replace" });
    return [sealed, next];
  },
  act: (api, [, next]) => api.seal(next?.id ?? "", { checksum: true }),
  check: async (api, { prepared, contents, step, isAcknowledged }) => {
    const [old, next] = prepared as [Region, Region];
    const [oldContent, nextContent] = contents as [Content, Content];
    const isReplaced = step === "seal.replaced-journaled" || step.startsWith("delete.");
    const holder = await api.findByName("new");
    expect(holder?.id, "one of both holds the name").toBe(isReplaced ? next.id : old.id);
    if (isReplaced) {
      await api.untilGone(old.id);
      expect(exists(old.storage.path)).toBeFalse();
      expect(await api.get(next.id)).toMatchObject({ state: "sealed", name: "new", pending_name: null });
      expect(readContent(next.storage.path)).toEqual({ ...nextContent, mode: modes.sealed });
      expect((await api.verify(next.id)).ok).toBeTrue();
      return;
    }
    expect(isAcknowledged).toBeFalse();
    expect(readContent(old.storage.path)).toEqual(oldContent);
    expect((await api.verify(old.id)).ok).toBeTrue();
    expect(await api.get(next.id)).toMatchObject({ state: "open", name: null, pending_name: "new" });
    expect(readContent(next.storage.path)).toEqual(nextContent);
    expect(await api.seal(next.id)).toMatchObject({ state: "sealed", name: "new" });
    await api.untilGone(old.id);
  },
};

function deleteScenario(claim: string, byteSize: number, needs?: string): Scenario {
  return {
    claim,
    kills: deleting,
    prepare: async (api) => [await api.create({ name: "new", byte_size: byteSize, persist: true })],
    act: (api, [region]) => api.delete(region?.id ?? ""),
    check: async (api, { prepared }) => {
      const [region] = prepared as [Region];
      // The row says so since the first step, so the start goes on with it.
      await api.untilGone(region.id);
      expect(exists(region.storage.path)).toBeFalse();
      expect(await api.findByName("new")).toBeUndefined();
    },
    needs,
  };
}

const windowed: KillPoint[] = [
  ...creating,
  { step: "create.window-allocated", count: 2 },
  { step: "create.window-allocated", count: 3 },
];

const scenarios: readonly Scenario[] = [
  createScenario("the creation of a small region", 100_000, creating),
  createScenario("the creation of a region in windows", 70 * MiB, windowed, needsRoom(256 * MiB)),
  sealScenario("a seal", 100_000, { checksum: false, stock_writable: true }),
  sealScenario("a seal with a checksum", 3 * MiB, { checksum: true }),
  replacing,
  deleteScenario("the deletion of a small region", 100_000),
  deleteScenario("the deletion of a large region", 70 * MiB, needsRoom(256 * MiB)),
];

describe("SIGKILL of the server", () => {
  let worker: WorkerProcess;
  beforeAll(() => {
    worker = new WorkerProcess();
  });
  afterAll(async () => {
    await worker.kill();
    assertNothingLeft();
  });

  test("happens at every step that there is", () => {
    const reached = new Set(scenarios.flatMap(({ kills }) => kills.map(({ step }) => step)));
    expect([...reached].toSorted()).toEqual([...steps].toSorted());
  });

  for (const scenario of scenarios) {
    for (const kill of scenario.kills) {
      const when = `${kill.step}${kill.count === undefined ? "" : ` (${kill.count})`}`;
      testWith(needsPython, scenario.needs)(`during ${scenario.claim}, after ${when}`, () =>
        runScenario(scenario, kill, worker),
      );
    }
  }

  for (const first of at("create.kept", "delete.journaled")) {
    for (const second of deleting.slice(1)) {
      testWith(needsPython)(`after ${first.step}, and again in the start that follows after ${second.step}`, () =>
        runDoubleCrash(first, second, worker),
      );
    }
  }
});

async function runScenario(scenario: Scenario, kill: KillPoint, worker: WorkerProcess): Promise<void> {
  await using server = new TestServer();
  using foreign = new ForeignFiles(server.instance);
  await server.start();
  // A server that frees a draining region again and again would die of that, and not of the request.
  const acknowledged = await AcknowledgedRegions.make(server, worker, kill.step !== "delete.withdrawn");
  const prepared = (await scenario.prepare?.(server.api)) ?? [];
  const contents = prepared.map(({ storage }) => readContent(storage.path));

  await server.crash(kill);
  const isAcknowledged = await isAnswered(scenario.act(server.api, prepared));
  expect(await server.exited(), `the server died after ${kill.step}`).toBe("SIGKILL");
  await server.start();

  await acknowledged.check(server);
  await scenario.check(server.api, { prepared, contents, step: kill.step, isAcknowledged });
  await acknowledged.check(server);
  await checkBooks(server, foreign.names);
  await acknowledged.release(server);
  await server.stop();
  checkRows(server.instance);
  expect(readdirSync(server.instance.new)).toEqual([]);
  foreign.assertUntouched();
}

/** Whether the server lived long enough to answer. @throws if it answered with a failure. */
function isAnswered(request: Promise<unknown>): Promise<boolean> {
  return request.then(
    () => true,
    (error) => {
      if (error instanceof NoAnswer) return false;
      throw error;
    },
  );
}

/** The start itself frees what the crash before it left half done, and dies of it. */
async function runDoubleCrash(first: KillPoint, second: KillPoint, worker: WorkerProcess): Promise<void> {
  await using server = new TestServer();
  using foreign = new ForeignFiles(server.instance);
  await server.start();
  const acknowledged = await AcknowledgedRegions.make(server, worker, false);
  const region = await server.api.create({ name: "new", byte_size: 100_000, persist: true });
  await server.crash(first);
  const act =
    first.step === "create.kept" ? server.api.create({ byte_size: 1, ttl_ms: hour }) : server.api.delete(region.id);
  expect(await isAnswered(act)).toBeFalse();
  expect(await server.exited()).toBe("SIGKILL");
  server.spawn(second);
  expect(await server.exited()).toBe("SIGKILL");
  await server.start();
  await until("all that was half done is freed", async () => (await server.api.stats()).regions.draining === 0);
  expect((await server.api.findByName("new"))?.id).toBe(first.step === "create.kept" ? region.id : undefined);
  await acknowledged.check(server);
  await checkBooks(server, foreign.names);
  await acknowledged.release(server);
  await server.stop();
  checkRows(server.instance);
  foreign.assertUntouched();
}
