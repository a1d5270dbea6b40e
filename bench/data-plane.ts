/**
 * Does the server answer others while a gigabyte passes through it, and what does it cost? Latency of small requests at a
 * steady rate, in alternating phases of one run: idle, while 1 GiB is downloaded again and again, while it is uploaded,
 * over the Unix socket and over TCP. Then the processor time of a GiB each way, and of a download without `sendfile`, and
 * the time of `cp`.
 */

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { readFileSync, rmSync } from "node:fs";
import { createInterface } from "node:readline";
import { Asker } from "./lib/asker.ts";
import { round, shmDirectory } from "./lib/machine.ts";
import { bun, python } from "./lib/places.ts";
import { type Ratio, report, say } from "./lib/result.ts";
import { chooseQuiet, findRoom, OthersWatch } from "./lib/room.ts";
import { BenchServer } from "./lib/server.ts";
import { median, summarize } from "./lib/statistics.ts";

const GiB = 2 ** 30;
const requestsPerSecond = 400;
const phaseMs = 4000;
const phasesWanted = 4;
const longestRunMs = 200_000;
/** Between two phases, so that what is left of one does not count for the next. */
const settleMs = 300;
const transfersMeasured = 5;
const windowBytes = 2 ** 20;
/** Clock ticks a second in `/proc` (proc(5), sysconf(_SC_CLK_TCK)): 100 on every Linux of today. */
const ticksPerSecond = 100;

/** A body goes in as one of a known length, or in chunks that do not say how many they are. */
type Move = "GET" | "PUT" | "CHUNKED";
const names = ["idle", "GET", "PUT", "CHUNKED"] as const;
type PhaseName = (typeof names)[number];

interface Region {
  readonly id: string;
  readonly storage: { readonly path: string };
}

/** A process that answers each line with a line. */
class Helper implements Disposable {
  readonly #process: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  constructor(command: string, args: readonly string[]) {
    this.#process = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"] });
    if (this.#process.stdout === null) throw new Error("no output");
    this.#lines = createInterface(this.#process.stdout)[Symbol.asyncIterator]();
  }

  get pid(): number {
    return this.#process.pid ?? 0;
  }

  async next(): Promise<string> {
    const { value, done } = await this.#lines.next();
    if (done === true) throw new Error("a helper has ended");
    return value;
  }

  ask(line: string): Promise<string> {
    this.#process.stdin?.write(`${line}\n`);
    return this.next();
  }

  [Symbol.dispose](): void {
    this.#process.kill();
  }
}

/** A client in a process of its own. */
class DataClient extends Helper {
  /** @param target a Unix socket, or a port of loopback TCP. */
  constructor(target: string) {
    super(python, [`${import.meta.dirname}/lib/data_client.py`, target]);
  }

  /** Moves 1 GiB. @returns its seconds. */
  async move(how: Move, path: string): Promise<number> {
    return Number(await this.ask(`${how} ${path} ${GiB}`));
  }
}

interface Phase {
  readonly name: PhaseName;
  readonly label: string;
  readonly isQuiet: boolean;
}

/** Latencies of others, in µs, while nothing moves and while data moves in each of the ways: medians of the phases. */
async function measureLatency(server: BenchServer, target: string, path: string) {
  const { id } = await server.call<Region>("POST", "/v1/regions", { byte_size: 65_536, ttl_ms: 3_600_000 });
  using client = new DataClient(target);
  const asker = new Asker(target, requestsPerSecond, [`/v1/regions/${id}`, "/livez"]);
  const phases: Phase[] = [];
  async function run(name: PhaseName): Promise<void> {
    if (name === "idle") return await Bun.sleep(phaseMs);
    for (const begin = performance.now(); performance.now() - begin < phaseMs; ) await client.move(name, path);
  }
  const quiet = (name: PhaseName) => phases.filter((phase) => phase.isQuiet && phase.name === name).length;
  const deadline = performance.now() + longestRunMs;
  // The first of each kind warms up and is left out.
  for (
    let tried = -names.length;
    performance.now() < deadline && names.some((name) => quiet(name) < phasesWanted);
    tried++
  ) {
    const name = names[(tried + names.length) % names.length] ?? "idle";
    const watch = new OthersWatch([process.pid, server.pid, client.pid, asker.pid]);
    await asker.during(tried < 0 ? "" : `${tried}`, () => run(name));
    if (tried >= 0) phases.push({ name, label: `${tried}`, isQuiet: watch.isQuiet() });
    await Bun.sleep(settleMs);
  }
  const latencies = await asker.end();
  return Object.fromEntries(names.map((name) => [name, summarizePhases(name, phases, latencies)]));
}

function summarizePhases(name: PhaseName, phases: readonly Phase[], latencies: Readonly<Record<string, number[]>>) {
  const chosen = chooseQuiet(
    phases.filter((phase) => phase.name === name),
    1,
  );
  const each = chosen.map(({ label }) => summarize(latencies[label] ?? []));
  const of = (key: "p50" | "p99" | "max") => median(each.map((summary) => summary[key]));
  return { p50: of("p50"), p99: of("p99"), max: of("max"), phases: chosen.length };
}

/** What 1 GiB costs: the median of some transfers, the first of which warms up. */
async function measureCost(client: DataClient, serverPid: number, how: Move, path: string) {
  const seconds: number[] = [];
  const cpuSeconds: number[] = [];
  for (let count = 0; count <= transfersMeasured; count++) {
    const before = readCpuSeconds(serverPid);
    const took = await client.move(how, path);
    if (count === 0) continue;
    seconds.push(took);
    cpuSeconds.push(readCpuSeconds(serverPid) - before);
  }
  return { seconds: median(seconds), cpuSeconds: median(cpuSeconds) };
}

/** The same download from the small server: by `sendfile`, and by windows through JavaScript. */
async function measureAlternative(path: string) {
  const socket = `${shmDirectory}/tensord-bench-${process.pid}.sock`;
  const script = `${import.meta.dirname}/lib/pread-server.ts`;
  using server = new Helper(bun, ["--no-env-file", "--no-orphans", script, socket, path, String(windowBytes)]);
  try {
    await server.next();
    using client = new DataClient(socket);
    return {
      sendfile: await measureCost(client, server.pid, "GET", "/sendfile"),
      pread: await measureCost(client, server.pid, "GET", "/pread"),
    };
  } finally {
    rmSync(socket, { force: true });
  }
}

/** Seconds of `cp` of the region's file within its file system, over pages that are there. */
function measureCopy(path: string): number {
  const copy = `${path}.copy`;
  try {
    const seconds: number[] = [];
    for (let count = 0; count <= transfersMeasured; count++) {
      const begin = performance.now();
      if (spawnSync("cp", ["--reflink=never", path, copy]).status !== 0) throw new Error("cp failed");
      if (count > 0) seconds.push((performance.now() - begin) / 1000);
    }
    return median(seconds);
  } finally {
    rmSync(copy, { force: true });
  }
}

/** User and system time of a process with its threads. */
function readCpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
}

if (await findRoom(3 * GiB)) {
  await using server = await BenchServer.start({ withTcp: true });
  const region = await server.call<Region>("POST", "/v1/regions", { byte_size: GiB, ttl_ms: 3_600_000 });
  const path = `/v1/regions/${region.id}/data`;
  const transports = { "Unix socket": server.socket, TCP: String(server.port) };
  const latencies: Record<string, Awaited<ReturnType<typeof measureLatency>>> = {};
  const ratios: Ratio[] = [];
  for (const [transport, target] of Object.entries(transports)) {
    const summaries = await measureLatency(server, target, path);
    latencies[transport] = summaries;
    for (const [name, { p50, p99, max, phases }] of Object.entries(summaries)) {
      const shown = [p50, p99, max].map((value) => round(value, 0));
      const times = `p50 ${shown[0]} µs, p99 ${shown[1]} µs, longest ${shown[2]} µs`;
      say(`${transport.padEnd(11)} ${name.padEnd(7)} ${times} (median of ${phases} phases)`);
      if (name === "idle") continue;
      const ratio = p99 / (summaries.idle?.p99 ?? Number.NaN);
      ratios.push({ what: `p99 of others, ${name} over ${transport} back to back, over idle`, ratio, target: 2 });
    }
  }
  using client = new DataClient(server.socket);
  const costs = {
    GET: await measureCost(client, server.pid, "GET", path),
    PUT: await measureCost(client, server.pid, "PUT", path),
    CHUNKED: await measureCost(client, server.pid, "CHUNKED", path),
    ...(await measureAlternative(region.storage.path)),
  };
  const cpSeconds = measureCopy(region.storage.path);
  for (const [name, { seconds, cpuSeconds }] of Object.entries(costs)) {
    say(`${name.padEnd(9)} 1 GiB in ${round(seconds)} s, ${round(cpuSeconds)} s of the server's processor time`);
  }
  say(`cp        1 GiB in ${round(cpSeconds)} s`);
  for (const name of ["GET", "PUT", "CHUNKED"] as const) {
    ratios.push({ what: `seconds of a ${name} over those of cp`, ratio: costs[name].seconds / cpSeconds });
  }
  ratios.push({
    what: "server's processor time of a GET by windows through JavaScript, over sendfile",
    ratio: costs.pread.cpuSeconds / costs.sendfile.cpuSeconds,
  });
  report({
    benchmark: "data-plane",
    question: "p99 of other requests while 1 GiB is downloaded or uploaded, over idle, and what a GiB costs",
    ratios,
    details: { requestsPerSecond, windowBytes, latencies, costs, cpSeconds },
  });
}
