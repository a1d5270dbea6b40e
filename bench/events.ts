/**
 * Does everybody hear of an event soon, and is everybody else still served? 1,000 subscribers and 100 events a second, in
 * phases that alternate with idle ones: how long each delivery takes, and requests of others meanwhile.
 *
 * Owns `eventSlice` and `eventVisit`.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { createInterface, type Interface } from "node:readline";
import { Asker } from "./lib/asker.ts";
import { clockMs } from "./lib/event-subscribers.ts";
import { HttpConnection, toRequest } from "./lib/http-connection.ts";
import { round } from "./lib/machine.ts";
import { bun } from "./lib/places.ts";
import { report, say } from "./lib/result.ts";
import { chooseQuiet, findRoom, OthersWatch } from "./lib/room.ts";
import { BenchServer } from "./lib/server.ts";
import { median, type Summary, summarize } from "./lib/statistics.ts";

const subscriberCount = Number(process.env.BENCH_SUBSCRIBERS ?? 1000);
const eventsPerSecond = 100;
const phaseMs = 4000;
const phasesWanted = 5;
const phasesTried = 4 * phasesWanted;
const requestsPerSecond = 400;
/** Between two phases, so that what is left of one does not count for the next. */
const settleMs = 300;
/** How long the last deliveries of a phase may take. */
const patienceMs = 30_000;

interface Told extends Summary {
  readonly frames: number;
}

/** The process with all subscribers. */
class Subscribers implements Disposable {
  readonly #process: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly #interface: Interface;

  constructor(socket: string) {
    const script = `${import.meta.dirname}/lib/event-subscribers.ts`;
    this.#process = spawn(bun, ["--no-env-file", "--no-orphans", script, socket, String(subscriberCount)], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    if (this.#process.stdout === null) throw new Error("no output");
    this.#interface = createInterface(this.#process.stdout);
    this.#lines = this.#interface[Symbol.asyncIterator]();
  }

  get pid(): number {
    return this.#process.pid ?? 0;
  }

  async opened(): Promise<void> {
    await this.#next();
  }

  /** What came since the last time. */
  async tell(): Promise<Told> {
    this.#process.stdin?.write("\n");
    return JSON.parse(await this.#next()) as Told;
  }

  async #next(): Promise<string> {
    const { value, done } = await this.#lines.next();
    if (done === true) throw new Error("the subscribers are gone");
    return value;
  }

  [Symbol.dispose](): void {
    this.#interface.close();
    this.#process.kill();
  }
}

interface Phase {
  readonly label: string;
  readonly isQuiet: boolean;
  /** Undefined in an idle phase. */
  readonly told: Told | undefined;
}

/** Tells events on a fixed schedule; each carries the time at which it was due. */
async function publish(connection: HttpConnection, region: string): Promise<number> {
  const begin = clockMs();
  const count = (phaseMs / 1000) * eventsPerSecond;
  for (let index = 0; index < count; index++) {
    const dueMs = begin + (index * 1000) / eventsPerSecond;
    await Bun.sleep(Math.max(0, dueMs - clockMs()));
    const labels = { due_at: String(dueMs), filler: "x".repeat(100) };
    const { status, body } = await connection.send(toRequest("PATCH", `/v1/regions/${region}`, { labels }));
    if (status !== 200) throw new Error(`answered ${status}: ${body}`);
  }
  return count;
}

/** Waits for the deliveries of `count` events. @throws Error if one was lost, or came twice. */
async function collect(subscribers: Subscribers, count: number): Promise<Told> {
  const wanted = count * subscriberCount;
  const deadline = performance.now() + patienceMs;
  const parts: Told[] = [];
  for (let frames = 0; frames < wanted; ) {
    if (performance.now() > deadline) throw new Error(`lost: ${frames} of ${wanted} deliveries`);
    const part = await subscribers.tell();
    parts.push(part);
    frames += part.frames;
    if (frames > wanted) throw new Error(`repeated: ${frames} deliveries of ${wanted}`);
    if (frames < wanted) await Bun.sleep(100);
  }
  const [largest] = parts.toSorted((a, b) => b.frames - a.frames);
  if (largest === undefined) throw new Error("nothing was told");
  // A straggler or two come after the question; the longest of all must count.
  return { ...largest, frames: wanted, max: Math.max(...parts.map(({ max }) => (Number.isNaN(max) ? 0 : max))) };
}

async function measure(server: BenchServer): Promise<{ phases: Phase[]; latencies: Record<string, number[]> }> {
  const { id } = await server.call<{ id: string }>("POST", "/v1/regions", { byte_size: 10, ttl_ms: 3_600_000 });
  using connection = await HttpConnection.open(server.socket);
  using subscribers = new Subscribers(server.socket);
  await subscribers.opened();
  const asker = new Asker(server.socket, requestsPerSecond, [`/v1/regions/${id}`, "/livez"]);
  const phases: Phase[] = [];
  const isEnough = () => phases.filter(({ isQuiet, told }) => isQuiet && told !== undefined).length >= phasesWanted;
  // The first of each kind warms up and is left out.
  for (let tried = -2; tried < phasesTried && !isEnough(); tried++) {
    const watch = new OthersWatch([process.pid, server.pid, asker.pid, subscribers.pid]);
    const isIdle = tried % 2 === 0;
    const label = `${tried}`;
    let count = 0;
    await asker.during(tried < 0 ? "" : label, async () => {
      if (isIdle) await Bun.sleep(phaseMs);
      else count = await publish(connection, id);
    });
    const isQuiet = watch.isQuiet();
    const told = isIdle ? undefined : await collect(subscribers, count);
    if (tried >= 0) phases.push({ label, isQuiet, told });
    await Bun.sleep(settleMs);
  }
  return { phases, latencies: await asker.end() };
}

function summarizeRequests(phases: readonly Phase[], latencies: Record<string, number[]>) {
  const each = phases.map(({ label }) => summarize(latencies[label] ?? []));
  return { p50: median(each.map(({ p50 }) => p50)), p99: median(each.map(({ p99 }) => p99)) };
}

if (await findRoom(2 ** 28)) {
  await using server = await BenchServer.start();
  const { phases, latencies } = await measure(server);
  const told = chooseQuiet(
    phases.filter((phase) => phase.told !== undefined),
    1,
  );
  const idle = chooseQuiet(
    phases.filter((phase) => phase.told === undefined),
    1,
  );
  const deliveries = told.flatMap((phase) => phase.told ?? []);
  const p99 = median(deliveries.map((delivery) => delivery.p99));
  const [p50, max] = [median(deliveries.map((delivery) => delivery.p50)), Math.max(...deliveries.map((it) => it.max))];
  const [idleRequests, requests] = [summarizeRequests(idle, latencies), summarizeRequests(told, latencies)];
  const frames = deliveries.reduce((sum, delivery) => sum + delivery.frames, 0);
  say(`delivery   p50 ${round(p50)} ms, p99 ${round(p99)} ms, longest ${round(max)} ms of ${frames}; none lost`);
  for (const [name, summary] of Object.entries({ "idle   ": idleRequests, meanwhile: requests })) {
    say(`requests   ${name} p50 ${round(summary.p50, 0)} µs, p99 ${round(summary.p99, 0)} µs`);
  }
  report({
    benchmark: "events",
    question: `event to ${subscriberCount} subscribers at ${eventsPerSecond} events a second, and other requests meanwhile`,
    ratios: [
      { what: "ms from when the request that makes an event was due to its delivery, p99", ratio: p99, target: 20 },
      { what: "ms of other requests meanwhile, p99", ratio: requests.p99 / 1000, target: 5 },
      { what: "p99 of other requests meanwhile, over idle", ratio: requests.p99 / idleRequests.p99 },
    ],
    details: { subscriberCount, eventsPerSecond, requestsPerSecond, deliveries, idleRequests, requests },
  });
}
