/**
 * SIGKILL of the server at each step of each operation that changes the books. What was acknowledged comes back as it
 * was; of the request under way there is the whole or nothing; nobody else's file is touched.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { type Step, steps } from "../../src/memory/state/steps.ts";
import { reserveSteps } from "../../src/memory/storage/shm/reserve/reserve-parts.ts";
import { hostOf } from "../../src/server/cli/pools.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { AcknowledgedRegions } from "../harness/instance-acknowledged.ts";
import { AcknowledgedSessions } from "../harness/instance-acknowledged-sessions.ts";
import { checkBooks, checkRows } from "../harness/instance-check.ts";
import { ForeignFiles } from "../harness/instance-foreign.ts";
import { concurrentTestWith, needsPython, needsRoot } from "../harness/instance-needs.ts";
import { lockPageBytes, Tmpfs } from "../harness/instance-tmpfs.ts";
import { clearServer } from "../harness/lent-server.ts";
import { isLong } from "../harness/rounds.ts";
import { type KillPoint, TestServer } from "../harness/server.ts";
import { NoAnswer, type Region } from "../harness/server-api.ts";
import { until } from "../harness/server-wait.ts";
import { WorkerProcess } from "../harness/worker.ts";
import { brokerScenarios } from "./broker-scenarios.ts";
import { claimScenarios } from "./claim-scenarios.ts";
import { copyScenarios } from "./copy-scenarios.ts";
import { listScenarios } from "./list-scenarios.ts";
import { loadScenarios } from "./load-scenarios.ts";
import { memfdScenarios } from "./memfd-scenarios.ts";
import { modelScenarios } from "./model-scenarios.ts";
import { regionScenarios } from "./region-scenarios.ts";
import { roomScenarios } from "./room-scenarios.ts";
import { at, deleting, hour, MiB, type Scenario } from "./scenario.ts";
import { sessionScenarios } from "./session-scenarios.ts";
import { timeScenarios } from "./time-scenarios.ts";
import { unnamedScenarios } from "./unnamed-scenarios.ts";

const scenarios: readonly Scenario[] = [
  ...regionScenarios,
  ...memfdScenarios,
  ...listScenarios,
  ...modelScenarios,
  ...sessionScenarios,
  ...claimScenarios,
  ...roomScenarios,
  ...timeScenarios,
  ...brokerScenarios,
  ...unnamedScenarios,
  ...copyScenarios,
  ...loadScenarios,
];

/** Where `device-faults.test.ts` and `elastic-faults.test.ts` kill it. */
const onDevice: readonly Step[] = ["hand-out.exported", ...steps.filter((step) => step.startsWith("vmm."))];

/** Where `reserve-killed.test.ts` does. */
const ofReserve: readonly Step[] = [...reserveSteps, "create.segment-taken", "create.segment-fitted"];

/** As many scenarios at once: a server that starts keeps one core busy. */
const turnsAtOnce = 2;

/** What the checks of every scenario add up to. Bytes are counted where the instance has a file system of its own. */
const none = {
  orphans: 0,
  unaccounted_bytes: needsRoot === undefined ? 0 : null,
  lost_regions: 0,
  repeated_builds: 0,
};
const counts = { kills: 0, ...none };

/**
 * A server, with a worker, that goes through one scenario after the other: it dies in each, and what stands afterwards is
 * taken away again.
 */
class Stage implements AsyncDisposable {
  readonly server: TestServer;
  readonly foreign: ForeignFiles;
  readonly foreignBytes: number;
  readonly #disposal: AsyncDisposableStack;

  private constructor(server: TestServer, foreign: ForeignFiles, foreignBytes: number, disposal: AsyncDisposableStack) {
    this.server = server;
    this.foreign = foreign;
    this.foreignBytes = foreignBytes;
    this.#disposal = disposal;
  }

  static async open(env: Readonly<Record<string, string>>): Promise<Stage> {
    await using opened = new AsyncDisposableStack();
    const tmpfs = needsRoot === undefined ? opened.use(new Tmpfs({ sizeBytes: 512 * MiB })) : undefined;
    const options = { env, isStepped: true, ...(tmpfs && { shmDirectory: tmpfs.path }) };
    const server = opened.use(new TestServer(options));
    const foreign = opened.use(new ForeignFiles(server.instance));
    const foreignBytes = tmpfs?.usedBytes ?? 0;
    await server.start();
    return new Stage(server, foreign, foreignBytes, opened.move());
  }

  /** Stops it in order, after which its rows and files tell the same story as before. */
  async [Symbol.asyncDispose](): Promise<void> {
    await using _ = this.#disposal;
    await this.server.stop();
    checkRows(this.server.instance);
    this.foreign.assertUntouched();
  }
}

/** Who has a turn: a worker, and the stages that were opened for it so far, by the settings of their servers. */
class Turn implements AsyncDisposable {
  readonly worker = new WorkerProcess();
  readonly #stages = new Map<string, Stage>();

  async stage({ env = {}, isFirst }: Scenario, run: (stage: Stage) => Promise<void>): Promise<void> {
    if (isFirst === true) {
      await using stage = await Stage.open(env);
      await run(stage);
      return;
    }
    const key = JSON.stringify(env);
    const stage = this.#stages.get(key) ?? (await Stage.open(env));
    this.#stages.set(key, stage);
    await using failed = new AsyncDisposableStack();
    failed.use(stage);
    // Whoever comes next begins anew if this one fails.
    failed.defer(() => void this.#stages.delete(key));
    await run(stage);
    failed.move();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await using ended = new AsyncDisposableStack();
    ended.defer(() => this.worker.kill());
    for (const stage of this.#stages.values()) ended.use(stage);
  }
}

/** Turns that are free. Whoever takes one gives it back with its worker unmapped. */
class Turns implements AsyncDisposable {
  readonly #free: Turn[] = [];
  readonly #waiting: ((turn: Turn) => void)[] = [];

  give(turn: Turn): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free.push(turn);
    else next(turn);
  }

  async take(run: (turn: Turn) => Promise<void>): Promise<void> {
    const turn = this.#free.pop() ?? (await new Promise<Turn>((resolve) => this.#waiting.push(resolve)));
    try {
      await run(turn);
    } finally {
      this.give(turn);
    }
  }

  /** Ends all; each must have been given back. */
  async [Symbol.asyncDispose](): Promise<void> {
    await using ended = new AsyncDisposableStack();
    for (const turn of this.#free) ended.use(turn);
  }
}

describe("SIGKILL of the server", () => {
  const turns = new Turns();
  beforeAll(() => {
    for (let count = 0; count < turnsAtOnce; count++) turns.give(new Turn());
  });
  afterAll(async () => {
    await turns[Symbol.asyncDispose]();
    assertNothingLeft();
    console.log(JSON.stringify(counts));
    expect(counts).toEqual({ ...none, kills: counts.kills });
  });

  test("happens at every step that there is", () => {
    const reached = new Set(scenarios.flatMap(({ kills }) => kills.map(({ step }) => step)));
    expect([...reached].toSorted()).toEqual(
      steps.filter((step) => ![...onDevice, ...ofReserve].includes(step)).toSorted(),
    );
  });

  for (const scenario of scenarios) {
    for (const kill of scenario.kills) {
      const when = `${kill.step}${kill.count === undefined ? "" : ` (${kill.count})`}`;
      concurrentTestWith(needsPython, scenario.needs)(`during ${scenario.claim}, after ${when}`, () =>
        turns.take((turn) => turn.stage(scenario, (stage) => runScenario(scenario, kill, stage, turn.worker))),
      );
    }
  }

  for (const [index, first] of at("create.kept", "delete.journaled").entries()) {
    // What the start frees it frees in one way: in the short form each of its steps once.
    for (const second of deleting.slice(1).filter((_, at) => isLong || at % 2 === index)) {
      concurrentTestWith(needsPython)(
        `after ${first.step}, and again in the start that follows after ${second.step}`,
        () => turns.take(({ worker }) => runDoubleCrash(first, second, worker)),
      );
    }
  }
});

async function runScenario(scenario: Scenario, kill: KillPoint, stage: Stage, worker: WorkerProcess): Promise<void> {
  const { server, foreign, foreignBytes } = stage;
  server.log.expect(...(scenario.warnings ?? []));
  // A region that was entered and never published gets its name at the start, and that is told like any other relink.
  const isUnpublished = kill.step === "create.journaled" || kill.step === "create.proved";
  if (isUnpublished) server.log.expect(/^tensord\.region\.relinked$/);
  // A server that frees a draining region again and again would die of that, and not of the request.
  const acknowledged = await AcknowledgedRegions.make(server, worker, kill.step !== "delete.withdrawn");
  const sessions = await AcknowledgedSessions.make(server);
  const { act, check } = await scenario.prepare(server.api, worker);

  server.killAfter(kill);
  const isAcknowledged = await isAnswered(act(server));
  expect(await server.exited(), `the server died after ${kill.step}`).toBe("SIGKILL");
  counts.kills += 1;
  await server.start();

  for (const id of [...acknowledged.ids, ...sessions.ids]) {
    if ((await server.api.find(id)) === undefined) counts.lost_regions += 1;
  }
  counts.repeated_builds += await sessions.countOtherBuilders(server);
  // What the start had spoilt, the second look finds, too.
  if (isLong) {
    await acknowledged.check(server);
    await sessions.check(server);
  }
  await check(server.api, { step: kill.step, count: kill.count ?? 1, isAcknowledged });
  await acknowledged.check(server);
  await sessions.check(server);
  await checkBooks(server, foreign.names);
  await acknowledged.release(server);
  await sessions.release(server);
  await until("nothing drains", async () => (await server.api.stats()).regions.draining === 0);
  // The scenario's own ones are called so.
  const isKnown = ({ id, name }: Pick<Region, "id" | "name">) => acknowledged.ids.includes(id) || name === "new";
  counts.orphans += (await server.api.list()).filter((region) => !isKnown(region)).length;
  if (counts.unaccounted_bytes !== null) {
    const { unaccounted_bytes: unaccounted } = hostOf(await server.api.stats());
    counts.unaccounted_bytes += Math.abs((unaccounted ?? Number.NaN) - lockPageBytes - foreignBytes);
  }
  checkRows(server.instance);
  expect(readdirSync(server.instance.new)).toEqual([]);
  foreign.assertUntouched();
  await clearServer(server);
  server.log.turnPage();
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
  counts.kills += 2;
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
