/**
 * The server killed under 100 clients that have memfd regions mapped and go on attaching: at random, and at each step of what
 * happens to such regions meanwhile. Every region is back with its bytes and its seals, every client holds its session again.
 */

import { afterAll, expect } from "bun:test";
import { join } from "node:path";
import type { Step } from "../../src/memory/state/steps.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { checkRows } from "../harness/instance-check.ts";
import { readMemfd, writeMemfd } from "../harness/instance-memfd.ts";
import { needsOpenFiles, needsPython, python, root, testWith } from "../harness/instance-needs.ts";
import { Random } from "../harness/instance-random.ts";
import { listSessions } from "../harness/instance-sessions.ts";
import { deadlineMsOf, roundsOf } from "../harness/rounds.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import { NoAnswer, type Region } from "../harness/server-api.ts";
import { until, within } from "../harness/server-wait.ts";
import { readLines } from "../harness/worker.ts";
import { at } from "./scenario.ts";

afterAll(assertNothingLeft);

const rounds = roundsOf("memfd-crowd");
const processes = 4;
const clientsEach = 25;

/** Where it dies. The last ones are the clients' own doing, the others that of a creation, a seal and a deletion beside them. */
const steps: readonly Step[] = [
  ...(["holder.kept", "create.kept", "create.journaled", "create.published"] as const),
  ...(["seal.mode-set", "seal.writers-asked", "seal.made-final", "seal.hashed", "seal.journaled"] as const),
  ...(["delete.journaled", "delete.asked", "holder.dropped", "delete.keeper-unlinked", "delete.row-deleted"] as const),
  ...(["hand-out.opened", "hand-out.locked", "hand-out.sent"] as const),
];
const atStart = at("holder.lock-sent", "holder.owned");

/** A process with many clients. */
class Crowd implements AsyncDisposable {
  readonly #process: Bun.Subprocess<"pipe", "pipe", "inherit">;
  readonly #lines: AsyncIterator<string>;

  constructor(server: TestServer) {
    const script = join(root, "tests/faults/workers/crowd.py");
    this.#process = Bun.spawn([python ?? "python3", script, server.instance.broker, String(clientsEach)], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    this.#lines = readLines(this.#process.stdout);
  }

  async #do<Value>(command: Readonly<Record<string, unknown>>): Promise<Value> {
    this.#process.stdin.write(`${JSON.stringify(command)}\n`);
    await this.#process.stdin.flush();
    const { value, done } = await within(`the crowd answers ${command.do}`, this.#lines.next(), 120_000);
    if (done === true) throw new Error(`the crowd died before it answered ${command.do}`);
    const answer = JSON.parse(value) as { ok: boolean; value: Value; error?: string };
    if (!answer.ok) throw new Error(`the crowd could not ${command.do}: ${answer.error}`);
    return answer.value;
  }

  open(regions: readonly Region[], first: number): Promise<string[]> {
    const known = regions.map(({ id, state, storage }) => ({ id, state, storage }));
    return this.#do({ do: "open", regions: known, first });
  }

  /** Until the server is gone. @returns how often they attached. */
  work(): Promise<number> {
    return this.#do({ do: "work" });
  }

  comeBack(): Promise<void> {
    return this.#do({ do: "come_back" });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill("SIGKILL");
    await within("the crowd is gone", this.#process.exited);
  }
}

/** A region's life beside them, over and over until the server dies of it. */
async function live({ api }: TestServer): Promise<void> {
  try {
    for (;;) {
      const region = await api.create({ name: "beside", storage: "memfd", byte_size: 50_000, persist: true });
      await api.seal(region.id, { checksum: true });
      await api.delete(region.id);
      await api.untilGone(region.id);
    }
  } catch (error) {
    if (!(error instanceof NoAnswer)) throw error;
  }
}

async function endLife({ api }: TestServer): Promise<void> {
  const left = (await api.list()).filter(({ name, state }) => name === "beside" && state !== "draining");
  for (const { id } of left) await api.delete(id);
  await until("nothing drains", async () => (await api.stats()).regions.draining === 0);
}

/** Ten regions of all sizes up to 300 kB; every other one is sealed. */
async function makeRegions(server: TestServer): Promise<Region[]> {
  const regions: Region[] = [];
  for (let index = 0; index < 10; index++) {
    const name = `region-${index}`;
    const byte_size = 4096 + index * 30_000;
    const region = await server.api.create({ name, storage: "memfd", byte_size, persist: true });
    if (index % 2 === 1) writeMemfd(region, server, index);
    regions.push(index % 2 === 1 ? await server.api.seal(region.id, { checksum: true }) : region);
  }
  return regions;
}

/** What no death may change: of open ones the clients see for themselves that what they wrote is there. */
function look(regions: readonly Region[], server: TestServer): unknown[] {
  return regions.map((region) => {
    const { hash, ...others } = readMemfd(region, server);
    return region.state === "sealed" ? { hash, ...others } : others;
  });
}

testWith(needsPython, needsOpenFiles(1024))(
  `${processes * clientsEach} attached clients of memfd regions go on after each of ${rounds} kills`,
  async () => {
    const random = new Random();
    console.log(`TEST_SEED=${random.seed}`);
    await using server = await startServer({ isStepped: true });
    const regions = await makeRegions(server);
    const before = look(regions, server);
    await using crowds = new AsyncDisposableStack();
    const all = Array.from({ length: processes }, () => crowds.use(new Crowd(server)));
    const sessions = (await Promise.all(all.map((crowd, index) => crowd.open(regions, index * clientsEach)))).flat();
    // Each once, in an order of the seed's, and then again.
    const deaths: ("at random" | "at its start" | Step)[] = [...steps, "at random", "at random", "at its start"];
    const order = deaths.map((death) => ({ death, by: random.fraction() })).toSorted((a, b) => a.by - b.by);
    const counts = { kills: 0, attached: 0 };
    for (let round = 0; round < rounds; round++) {
      const death = order[round % order.length]?.death ?? "at random";
      const working = Promise.all([...all.map((crowd) => crowd.work()), live(server).then(() => 0)]);
      if (death === "at random" || death === "at its start") {
        await Bun.sleep(random.integer(1, 60));
        await server.kill("SIGKILL");
      } else {
        server.killAfter({ step: death, count: random.integer(1, 3) });
        expect(await server.exited(), `after ${death}`).toBe("SIGKILL");
      }
      counts.kills += 1;
      counts.attached += (await working).reduce((sum, count) => sum + count, 0);
      for (const kill of death === "at its start" ? atStart : []) {
        server.spawn(kill);
        expect(await server.exited(), `at its start, after ${kill.step}`).toBe("SIGKILL");
        counts.kills += 1;
      }
      await server.start();
      await Promise.all(all.map((crowd) => crowd.comeBack()));
      expect(look(regions, server), `after ${death}`).toEqual(before);
      const held = (await listSessions(server.api)).filter((session) => session.held).map(({ id }) => id);
      expect(held.toSorted(), `after ${death}`).toEqual(sessions.toSorted());
      for (const { id, state } of regions) {
        expect(await server.api.get(id), `after ${death}`).toMatchObject({
          ...{ state, in_use: true, has_writers: state === "open" },
        });
      }
      await endLife(server);
    }
    console.log(JSON.stringify(counts));
    expect(counts.attached).toBeGreaterThan(rounds);
    await crowds.disposeAsync();
    await until("their sessions have ended", async () => (await listSessions(server.api)).length === 0);
    for (const { id } of regions) expect((await server.api.delete(id)).state).toBe("deleted");
    await server.stop();
    checkRows(server.instance);
  },
  deadlineMsOf(rounds, 10_000),
);
