/**
 * Does the server answer others while it allocates and frees gigabytes? Latency of small requests at a steady rate, in
 * alternating phases of one run: idle, while 8 GiB are allocated, while they are freed.
 *
 * Owns `allocateWindowBytes`, `inlineBytes` and the priority of the filling Worker.
 */

import { Asker } from "./lib/asker.ts";
import { round } from "./lib/machine.ts";
import { report, say } from "./lib/result.ts";
import { chooseQuiet, findRoom, OthersWatch } from "./lib/room.ts";
import { BenchServer } from "./lib/server.ts";
import { median, type Summary, summarize } from "./lib/statistics.ts";

const GiB = 2 ** 30;
const totalGiB = Number(process.env.BENCH_GIB ?? 8);
/** Requests wanted in each phase; the 99th percentile of 2000 has 20 beyond it. */
const samplesWanted = Number(process.env.BENCH_SAMPLES ?? 2000);
const longestRunMs = 150_000;
const requestsPerSecond = 400;
const idleMs = 2000;
/** Between two phases, so that what is left of one does not count for the next. */
const settleMs = 200;

interface Region {
  readonly id: string;
}

interface PhaseSummary extends Summary {
  /**
   * The median of the single times' p99. A virtual machine stands still for 100 ms now and then, in idle phases as well;
   * one such moment would decide the p99 of all requests together.
   */
  readonly typicalP99: number;
  readonly gibPerSecond: number;
  /** Times that it was measured, and how many of them nobody else used the machine. */
  readonly measured: number;
  readonly quiet: number;
}

/** One phase, named, and whether others left the machine to us meanwhile. */
interface Phase {
  readonly name: string;
  readonly label: string;
  readonly seconds: number;
  readonly isQuiet: boolean;
}

/** One cycle through all phases. `run` measures a phase. */
async function cycle(
  server: BenchServer,
  run: (name: string, work: () => Promise<unknown>) => Promise<void>,
): Promise<void> {
  for (const count of [1, totalGiB]) {
    const what = count === 1 ? "one region" : `${count} regions at once`;
    const each = <Answer>(work: (index: number) => Promise<Answer>) =>
      Promise.all(Array.from({ length: count }, (_, index) => work(index)));
    let regions: Region[] = [];
    await run("idle", () => Bun.sleep(idleMs));
    await run(`allocate, ${what}`, async () => {
      const body = { byte_size: (totalGiB * GiB) / count, ttl_ms: 3_600_000 };
      regions = await each(() => server.call<Region>("POST", "/v1/regions", body));
    });
    await run(`free, ${what}`, () => each((index) => server.call("DELETE", `/v1/regions/${regions[index]?.id}`)));
  }
}

/** Runs cycles until every phase was asked often enough in quiet, or the time is over. */
async function measure(server: BenchServer): Promise<{ phases: Phase[]; latencies: Record<string, number[]> }> {
  const small = await server.call<Region>("POST", "/v1/regions", { byte_size: 65_536, ttl_ms: 3_600_000 });
  const asker = new Asker(server.socket, requestsPerSecond, [`/v1/regions/${small.id}`, "/livez"]);
  const phases: Phase[] = [];
  const deadline = performance.now() + longestRunMs;
  const run = async (name: string, work: () => Promise<unknown>) => {
    const label = `${phases.length}`;
    const watch = new OthersWatch([process.pid, server.pid, asker.pid]);
    const seconds = await asker.during(label, work);
    phases.push({ name, label, seconds, isQuiet: watch.isQuiet() });
    await Bun.sleep(settleMs);
  };
  const isEnough = () => {
    const seconds = new Map<string, number>(phases.map(({ name }) => [name, 0]));
    for (const phase of phases)
      if (phase.isQuiet) seconds.set(phase.name, (seconds.get(phase.name) ?? 0) + phase.seconds);
    return phases.length > 0 && [...seconds.values()].every((sum) => sum * requestsPerSecond >= samplesWanted);
  };
  await Bun.sleep(2000);
  while (!isEnough() && performance.now() < deadline) await cycle(server, run);
  return { phases, latencies: await asker.end() };
}

function toSummary(phases: readonly Phase[], latencies: Record<string, number[]>): PhaseSummary {
  const chosen = chooseQuiet(phases, 1);
  return {
    ...summarize(chosen.flatMap(({ label }) => latencies[label] ?? [])),
    typicalP99: median(chosen.map(({ label }) => summarize(latencies[label] ?? []).p99)),
    gibPerSecond: round(totalGiB / median(chosen.map(({ seconds }) => seconds))),
    measured: phases.length,
    quiet: phases.filter(({ isQuiet }) => isQuiet).length,
  };
}

if (await findRoom((totalGiB + 1) * GiB)) {
  await using server = await BenchServer.start();
  const { phases, latencies } = await measure(server);
  const names = [...new Set(phases.map(({ name }) => name))];
  const summaries = Object.fromEntries(
    names.map((name) => [
      name,
      toSummary(
        phases.filter((phase) => phase.name === name),
        latencies,
      ),
    ]),
  );
  for (const [name, { samples, p50, typicalP99, max, gibPerSecond, measured, quiet }] of Object.entries(summaries)) {
    const speed = name === "idle" ? "" : `, ${gibPerSecond} GiB/s`;
    const [p50Shown, p99Shown, maxShown] = [p50, typicalP99, max].map((value) => round(value, 0));
    say(
      `${name.padEnd(27)} p50 ${p50Shown} µs, p99 ${p99Shown} µs, longest ${maxShown} µs of ${samples} requests${speed}` +
        ` (quiet in ${quiet} of ${measured} times)`,
    );
  }
  const idle = summaries.idle?.typicalP99 ?? Number.NaN;
  report({
    benchmark: "latency-under-allocation",
    question: `p99 of other requests while ${totalGiB} GiB are allocated and freed, over idle p99`,
    ratios: Object.entries(summaries)
      .filter(([name]) => name !== "idle")
      .map(([name, { typicalP99 }]) => ({ what: `p99, ${name}, over idle`, ratio: typicalP99 / idle, target: 2 })),
    details: { unit: "µs", totalGiB, requestsPerSecond, phases: summaries },
  });
}
