/**
 * How fast are others? Ours and theirs in turns, on the same work: an array is put where other processes reach it, is attached,
 * is handed to a process that waits for it; a second worker opens and reads a model. `npm run bench:figures` makes plots and
 * tables of what it writes.
 */

import { globSync } from "node:fs";
import { join } from "node:path";
import { round } from "./lib/machine.ts";
import { repository } from "./lib/places.ts";
import { report, say } from "./lib/result.ts";
import { findRoom, OthersWatch } from "./lib/room.ts";
import { BenchServer } from "./lib/server.ts";
import { type Part, type PartName, type Samples, toWork, type Work } from "./peers/measured.ts";

const GiB = 2 ** 30;
const lookMs = 3000;
/** The largest array: each of the systems keeps one or two of it, and the largest arena three. */
const mostBytes = Number(process.env.BENCH_PEERS_BYTES ?? GiB);
const sizes = [2 ** 20, 64 * 2 ** 20, GiB].filter((size) => size <= mostBytes);
const messages = [64, 4096, 2 ** 20, 64 * 2 ** 20].filter((size) => size <= mostBytes);

const interpreter = join(repository, ".tmp/peers/bin/python");
/** Ours from the sources; torch and safetensors from the tests' environment. */
const searched = [
  join(repository, "clients/python/src"),
  ...globSync(join(repository, ".venv/lib/python3.*/site-packages")),
];

interface Printed<Times> {
  readonly times: Times;
  readonly absent: Readonly<Record<string, string>>;
}

async function runHalf<Times>(script: string, ...args: readonly string[]): Promise<Printed<Times>> {
  const child = Bun.spawn([interpreter, join(repository, "bench/peers", script), ...args], {
    env: { ...process.env, PYTHONPATH: searched.join(":"), RAY_USAGE_STATS_ENABLED: "0", OMP_NUM_THREADS: "1" },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const text = await child.stdout.text();
  if ((await child.exited) !== 0) throw new Error(`${script} ended with ${child.exitCode}`);
  return JSON.parse(text.trim().split("\n").at(-1) ?? "") as Printed<Times>;
}

/** Cores that others use, while nothing of ours runs but a server that has nothing to do. */
async function lookAround(): Promise<{ readonly cores: number; readonly isQuiet: boolean }> {
  const watch = new OthersWatch([process.pid]);
  await Bun.sleep(lookMs);
  return { cores: round(watch.cores()), isQuiet: watch.isQuiet() };
}

let isQuiet = true;

/** One part with a server of its own, which has nothing left of the part before. */
async function runPart(
  name: PartName,
  run: (url: string) => Promise<{ works: Work[]; absent: Readonly<Record<string, string>> }>,
): Promise<Part> {
  const before = await lookAround();
  const { works, absent } = await (async () => {
    await using server = await BenchServer.start({ settings: {} });
    return await run(`unix://${server.socket}`);
  })();
  const after = await lookAround();
  isQuiet &&= before.isQuiet && after.isQuiet;
  for (const { what, unit, figures } of works) {
    say(what);
    for (const { system, time, ratio, low, high } of figures) {
      say(`  ${system.padEnd(26)} ${String(time).padStart(8)} ${unit}  ${ratio} (${low} to ${high})`);
    }
  }
  for (const [system, why] of Object.entries(absent)) say(`  ${system} is not here: ${why}`);
  if (!(before.isQuiet && after.isQuiet)) {
    say(`note   others used ${before.cores} cores before, ${after.cores} after ${name}: no verdict`);
  }
  return { name, works, absent, othersBefore: before.cores, othersAfter: after.cores };
}

function showBytes(size: number): string {
  const [unit, by] = size >= GiB ? ["GiB", GiB] : size >= 2 ** 20 ? ["MiB", 2 ** 20] : ["KiB", 1024];
  return size < 1024 ? `${size} B` : `${size / by} ${unit}`;
}

async function createAndWrite(url: string) {
  const { times, absent } = await runHalf<Record<string, Samples>>("create_write.py", url, ...sizes.map(String));
  const works = sizes.map((size) =>
    toWork(`Create and write ${showBytes(size)}`, "ms", "memcpy", times[String(size)] ?? {}),
  );
  return { works, absent };
}

async function attach(url: string) {
  const size = 64 * 2 ** 20;
  const { times, absent } = await runHalf<Samples>("attach.py", url, String(size));
  return { works: [toWork(`Attach ${showBytes(size)}`, "µs", "open + mmap", times)], absent };
}

async function handOff(url: string) {
  const works: Work[] = [];
  let absences = {};
  for (const cores of [1, 2]) {
    const args = [String(cores), ...messages.map(String)];
    const { times, absent } = await runHalf<Record<string, Samples>>("hand_off.py", url, ...args);
    const where = cores === 1 ? "on one core" : "on two cores";
    works.push(
      ...messages.map((size) =>
        toWork(`Hand off ${showBytes(size)}, ${where}`, "µs", "by hand", times[String(size)] ?? {}),
      ),
    );
    absences = { ...absences, ...absent };
  }
  return { works, absent: absences };
}

async function openModel(url: string) {
  const { times, absent } = await runHalf<Record<"open" | "open and read", Samples>>(
    "model.py",
    url,
    String(mostBytes),
  );
  const what = `a model of ${showBytes(mostBytes)}, 600 tensors, in a second worker`;
  const works = (["open", "open and read"] as const).map((step) =>
    toWork(`${step === "open" ? "Open" : "Open and read"} ${what}`, "ms", "safetensors load_file", times[step]),
  );
  return { works, absent };
}

if (await findRoom(10 * mostBytes)) {
  const parts = [
    await runPart("create-write", createAndWrite),
    await runPart("attach", attach),
    await runPart("hand-off", handOff),
    await runPart("model", openModel),
  ];
  if (!isQuiet) say("note   the machine was not quiet: there is no verdict in this run");
  report({
    benchmark: "peers",
    question: "How fast are others at the same work, in the same run?",
    ratios: parts.flatMap(({ works }) =>
      works.flatMap(({ what, reference, figures }) =>
        figures
          .filter(({ system }) => system.startsWith("tensord"))
          .map(({ system, ratio }) => ({ what: `${what}: ${system} over ${reference}`, ratio })),
      ),
    ),
    details: { parts, isQuiet },
  });
}
