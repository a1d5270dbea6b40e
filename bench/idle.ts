/**
 * What does a server take that nobody asks anything? Its memory by what it is of, the processor time and wake-ups of each of its
 * threads, and how long the first requests then take: after the start, and after 10,000 allocations and frees. From the sources, and the
 * executable where `npm run build` has made it. Its shared directory is its own: who makes files there wakes every server.
 */

import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { parseMappings } from "../src/memory/os/libc-program.ts";
import { HttpConnection, toRequest } from "./lib/http-connection.ts";
import { round, shmDirectory } from "./lib/machine.ts";
import { serverTree } from "./lib/places.ts";
import { report, say } from "./lib/result.ts";
import { findRoom, OthersWatch } from "./lib/room.ts";
import { BenchServer } from "./lib/server.ts";
import { summarize } from "./lib/statistics.ts";

const MiB = 2 ** 20;
const allocations = Number(process.env.BENCH_ALLOCATIONS ?? 10_000);
/** From the last request on until it is looked at, and for how long. */
const settleMs = 45_000;
const watchMs = 60_000;
const firstRequests = 20;
const targets = { residentMiB: 50, percentOfACore: 0.2 };

interface ThreadUse {
  readonly name: string;
  /** Nanoseconds on a processor, and how often it left one: each time it is woken it does. */
  readonly busyNs: number;
  readonly wakes: number;
}

function readThreads(pid: number): Map<string, ThreadUse> {
  const threads = new Map<string, ThreadUse>();
  for (const tid of readdirSync(`/proc/${pid}/task`)) {
    const folder = `/proc/${pid}/task/${tid}`;
    try {
      const [busyNs] = readFileSync(`${folder}/schedstat`, "utf8").split(" ").map(Number);
      const switches = readFileSync(`${folder}/status`, "utf8").matchAll(/ctxt_switches:\s+(\d+)/g);
      const wakes = [...switches].reduce((sum, [, count]) => sum + Number(count), 0);
      threads.set(tid, { name: readFileSync(`${folder}/comm`, "utf8").trim(), busyNs: busyNs ?? 0, wakes });
    } catch {
      // It has ended since.
    }
  }
  return threads;
}

/** What memory is of, in MiB. A page of a file is the kernel's, whoever has it mapped: there is no second copy for the server. */
function readMemory(server: BenchServer) {
  const status = readFileSync(`/proc/${server.pid}/status`, "utf8");
  const lineMiB = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(status)?.[1]) / 1024;
  const mappings = parseMappings(readFileSync(`/proc/${server.pid}/smaps`, "utf8"));
  const filesMiB = (permissions: string) =>
    mappings
      .filter((mapping) => mapping.inode !== 0 && mapping.permissions === permissions)
      .reduce((sum, mapping) => sum + mapping.residentBytes - mapping.anonymousBytes, 0) / MiB;
  return {
    residentMiB: lineMiB("VmRSS"),
    proportionalMiB: server.memoryBytes("Pss") / MiB,
    anonymousMiB: lineMiB("RssAnon"),
    ofFilesMiB: lineMiB("RssFile"),
    sharedMiB: lineMiB("RssShmem"),
    codeOfFilesMiB: filesMiB("r-xp"),
    constantsOfFilesMiB: filesMiB("r--p"),
    writableOfFilesMiB: filesMiB("rw-p"),
  };
}

async function watch(server: BenchServer) {
  const others = new OthersWatch([process.pid, server.pid]);
  const [before, begin] = [readThreads(server.pid), performance.now()];
  await Bun.sleep(watchMs);
  const [after, ms] = [readThreads(server.pid), performance.now() - begin];
  // One that began meanwhile counts whole.
  const threads = [...after].map(([tid, { name, busyNs, wakes }]) => ({
    name,
    percent: ((busyNs - (before.get(tid)?.busyNs ?? 0)) / 1e6 / ms) * 100,
    wakesPerSecond: ((wakes - (before.get(tid)?.wakes ?? 0)) / ms) * 1000,
  }));
  const percent = threads.reduce((sum, thread) => sum + thread.percent, 0);
  const wakesPerSecond = threads.reduce((sum, thread) => sum + thread.wakesPerSecond, 0);
  return { percent, wakesPerSecond, othersCores: others.cores(), threads };
}

/** Milliseconds of the first requests after a rest, beside the median of as many that follow. */
async function askFirst(server: BenchServer) {
  using connection = await HttpConnection.open(server.socket);
  const time = async () => {
    const begin = performance.now();
    await allocateAndFree(connection);
    return performance.now() - begin;
  };
  const samples: number[] = [];
  for (let i = 0; i < 2 * firstRequests; i++) samples.push(await time());
  return { firstMs: samples.slice(0, firstRequests), thenMs: summarize(samples.slice(firstRequests)).p50 };
}

async function allocateAndFree(connection: HttpConnection): Promise<void> {
  const made = await connection.send(toRequest("POST", "/v1/regions", { byte_size: 4096, ttl_ms: 3_600_000 }));
  if (made.status !== 201) throw new Error(`an allocation was answered with ${made.status}: ${made.body}`);
  const { id } = JSON.parse(made.body) as { readonly id: string };
  const { status, body } = await connection.send(toRequest("DELETE", `/v1/regions/${id}`));
  if (status >= 300) throw new Error(`a deletion was answered with ${status}: ${body}`);
}

async function look(server: BenchServer, what: string) {
  await Bun.sleep(settleMs);
  const memory = readMemory(server);
  const use = await watch(server);
  const memoryAfter = readMemory(server);
  const { firstMs, thenMs } = await askFirst(server);
  const text = Object.entries(memory).map(([name, value]) => `${name} ${round(value, 1)}`);
  say(`${what}: ${text.join(", ")}`);
  const woken = use.threads.toSorted((a, b) => b.percent - a.percent).slice(0, 4);
  const threads = woken.map(
    ({ name, percent, wakesPerSecond }) => `${name} ${round(percent, 3)} % ${round(wakesPerSecond, 1)}/s`,
  );
  say(
    `  ${round(use.percent, 3)} % of a core, ${round(use.wakesPerSecond, 1)} wake-ups a second, ${use.threads.length} threads ` +
      `(${threads.join(", ")}); others used ${round(use.othersCores)} cores`,
  );
  const first = firstMs.slice(0, 3).map((ms) => round(ms));
  say(`  the first allocations and frees then took ${first.join(", ")} ms, later ones ${round(thenMs)} ms`);
  const ratios = [
    { what: `MiB resident, ${what}`, ratio: memory.residentMiB, target: targets.residentMiB },
    { what: `% of a core, ${what}`, ratio: use.percent, target: targets.percentOfACore },
  ];
  return { what, ratios, memory, memoryAfter, use, firstMs, thenMs };
}

async function measure(program: string, executable?: string) {
  const directory = mkdtempSync(join(shmDirectory, "bench-idle-"));
  try {
    await using server = await BenchServer.start({
      withTcp: true,
      executable,
      settings: { TENSORD_SHM_DIR: directory },
    });
    const started = await look(server, `${program}, after its start`);
    using connection = await HttpConnection.open(server.socket);
    for (let i = 0; i < allocations; i++) await allocateAndFree(connection);
    connection[Symbol.dispose]();
    return [started, await look(server, `${program}, after ${allocations} allocations and frees`)];
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

if (await findRoom(2 * 2 ** 30)) {
  const executable = join(serverTree, "dist/tensord");
  const looks = await measure("from the sources");
  if (existsSync(executable)) looks.push(...(await measure("the executable", executable)));
  else say("note   there is no dist/tensord: npm run build makes it");
  report({
    benchmark: "idle",
    question: "what a server takes that nobody asks anything",
    ratios: looks.flatMap(({ ratios }) => ratios),
    details: { allocations, settleMs, watchMs, looks },
  });
}
