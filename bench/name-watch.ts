/**
 * What does a stranger cost who makes and unlinks 50,000 files a second in the shared directory? Processor time of the idle
 * server's event loop and of its whole process, and how long a request waits at most, beside a time in which nobody does.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { lstatSync, readdirSync, readFileSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { Asker } from "./lib/asker.ts";
import { round, shmDirectory } from "./lib/machine.ts";
import { report, say } from "./lib/result.ts";
import { findRoom } from "./lib/room.ts";
import { BenchServer } from "./lib/server.ts";
import { summarize } from "./lib/statistics.ts";

const filesPerSecond = 50_000;
const requestsPerSecond = 50;
const regions = 1000;
const phaseMs = 10_000;
const settleMs = 500;

interface Phase {
  readonly name: string;
  readonly filesPerSecond: number;
  /** Shares of one core. */
  readonly loop: number;
  readonly process: number;
}

/** Time on a processor, in ms, of the thread that runs the event loop and of all threads (proc(5), schedstat). */
function readTimes(pid: number): { readonly loop: number; readonly process: number } {
  const times = readdirSync(`/proc/${pid}/task`).map(
    (tid) => [tid, timeOf(`/proc/${pid}/task/${tid}/schedstat`)] as const,
  );
  return { loop: new Map(times).get(`${pid}`) ?? 0, process: times.reduce((sum, [, ms]) => sum + ms, 0) };
}

function timeOf(path: string): number {
  try {
    return Number(readFileSync(path, "utf8").split(" ")[0]) / 1e6;
  } catch {
    return 0;
  }
}

/** The server's times while `prefix` names the stranger's files; without one nobody is there. */
async function measure(server: BenchServer, name: string, prefix: string | undefined): Promise<Phase> {
  const script = join(import.meta.dirname, "lib", "stranger.mjs");
  const args = [script, shmDirectory, prefix ?? "", `${filesPerSecond}`];
  const stranger =
    prefix === undefined ? undefined : spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  let made = 0;
  stranger?.stdout.setEncoding("utf8").on("data", (text: string) => {
    made = Number(text.trim().split("\n").at(-1));
  });
  try {
    if (stranger !== undefined) await once(stranger.stdout, "data");
    const [madeBefore, before, begin] = [made, readTimes(server.pid), performance.now()];
    await Bun.sleep(phaseMs);
    const [after, ms] = [readTimes(server.pid), performance.now() - begin];
    return {
      name,
      filesPerSecond: ((made - madeBefore) / ms) * 1000,
      loop: (after.loop - before.loop) / ms,
      process: (after.process - before.process) / ms,
    };
  } finally {
    if (stranger !== undefined) await end(stranger, prefix ?? "");
  }
}

/** It may be killed between the two, and leave the file of that moment. */
async function end(stranger: ChildProcess, prefix: string): Promise<void> {
  const ended = once(stranger, "exit");
  stranger.kill("SIGKILL");
  await ended;
  const left = readdirSync(shmDirectory).filter((name) => name.startsWith(prefix) && /[a-z]{26}$/.test(name));
  // A region's file has bytes, and a second link in the keeper.
  for (const path of left.map((name) => join(shmDirectory, name))) {
    const { nlink, size } = lstatSync(path);
    if (nlink === 1 && size === 0) unlinkSync(path);
  }
}

if (await findRoom(2 ** 30)) {
  await using server = await BenchServer.start();
  for (let i = 0; i < regions; i++) await server.call("POST", "/v1/regions", { byte_size: 4096, ttl_ms: 3_600_000 });
  const asker = new Asker(server.socket, requestsPerSecond, ["/livez"]);
  const phases: Phase[] = [];
  const run = async (name: string, prefix: string | undefined) => {
    await asker.during(name, async () => phases.push(await measure(server, name, prefix)));
    await Bun.sleep(settleMs);
  };
  await Bun.sleep(settleMs);
  await run("nobody", undefined);
  await run("a stranger", `bench-stranger-${server.instance}-`);
  await run("a stranger with names like ours", `tensord.${server.instance}.`);
  const latencies = await asker.end();
  const [idle] = phases;
  const longest = (name: string) => summarize(latencies[name] ?? []).max / 1000;
  for (const { name, filesPerSecond: files, loop, process } of phases) {
    const [loopShown, processShown] = [loop, process].map((share) => `${round(share * 100, 1)} %`);
    say(
      `${name.padEnd(32)} ${round(files, 0)} files a second: the loop ${loopShown}, the process ${processShown} of a core; ` +
        `longest answer ${round(longest(name))} ms`,
    );
  }
  report({
    benchmark: "name-watch",
    question: `what ${filesPerSecond} files a second in the shared directory cost the server, in percent of a core`,
    ratios: phases.slice(1).flatMap(({ name, loop, process }) => [
      { what: `% of a core, the event loop, ${name}`, ratio: (loop - (idle?.loop ?? 0)) * 100, target: 2 },
      { what: `% of a core, the whole process, ${name}`, ratio: (process - (idle?.process ?? 0)) * 100, target: 25 },
    ]),
    details: {
      regions,
      requestsPerSecond,
      phases: phases.map((phase) => ({ ...phase, longestAnswerMs: longest(phase.name) })),
    },
  });
}
