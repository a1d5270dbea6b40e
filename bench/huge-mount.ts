/**
 * What does a tmpfs of huge pages save a worker? Create and write 64 MiB and 1 GiB from Python on one that is mounted with
 * `huge=within_size`, where there is no reserve, over one plain copy into pages that are there. The mount is made over the shared
 * memory directory in a mount namespace of its own, so it ends with the benchmark, and nobody else sees it.
 */

import { round, shmDirectory } from "./lib/machine.ts";
import { bun } from "./lib/places.ts";
import { runPython } from "./lib/python.ts";
import { type Ratio, report, say } from "./lib/result.ts";
import { findRoom } from "./lib/room.ts";
import { BenchServer } from "./lib/server.ts";
import { summarize } from "./lib/statistics.ts";

const MiB = 2 ** 20;
const GiB = 2 ** 30;
/** By size: how many rounds, and the most that it may take. */
const works = [
  { byteSize: 64 * MiB, rounds: 25, target: 1.1 },
  { byteSize: GiB, rounds: 5, target: undefined },
];
/** What the directory has to have free: a region and the standard library's memory, of 1 GiB each. */
const roomBytes = 3 * GiB;

/** What `create_write.py` times, in ms. */
type Timings = Readonly<Record<"memcpy" | "create_and_write" | "create_alone" | "shared_memory", readonly number[]>>;

/** In a mount namespace of its own; who is not root is it there. */
function unshare(script: string, ...args: string[]): string[] {
  const asRoot = process.getuid?.() === 0 ? [] : ["--map-root-user"];
  return ["unshare", ...asRoot, "--mount", "--propagation", "private", "sh", "-c", script, ...args];
}

/** Why it cannot be done here; undefined if it can. */
function refusalOf(script: string): string | undefined {
  if (Bun.which("unshare") === null) return "there is no unshare(1)";
  const { success, stderr } = Bun.spawnSync(unshare(script));
  return success ? undefined : stderr.toString().trim();
}

if (process.env.BENCH_HUGE_MOUNT === undefined) {
  const mount = `mount -t tmpfs -o huge=within_size,mode=1777,size=${roomBytes} tmpfs ${shmDirectory}`;
  const refusal = refusalOf(mount);
  if (refusal !== undefined) say(`SKIP   no tmpfs with huge=within_size can be mounted here: ${refusal}`);
  else {
    const again = unshare(`${mount} && exec "$0" "$@"`, bun, "--no-env-file", import.meta.path);
    const { exitCode } = Bun.spawnSync(again, {
      env: { ...process.env, BENCH_HUGE_MOUNT: "1" },
      stdio: ["ignore", "inherit", "inherit"],
    });
    process.exitCode = exitCode;
  }
} else if (await findRoom(roomBytes - GiB / 2)) {
  await using server = await BenchServer.start();
  const ratios: Ratio[] = [];
  const details: Record<string, unknown> = { unit: "ms" };
  for (const { byteSize, rounds, target } of works) {
    const args = [`unix://${server.socket}`, String(byteSize), String(rounds)];
    const ms = await runPython<Timings>("create_write.py", args, [server.pid]);
    const summaries = Object.fromEntries(Object.entries(ms).map(([what, times]) => [what, summarize(times)]));
    const p50 = (what: keyof Timings) => summaries[what]?.p50 ?? Number.NaN;
    const size = byteSize < GiB ? `${byteSize / MiB} MiB` : `${byteSize / GiB} GiB`;
    const over = (what: keyof Timings) => p50(what) / p50("memcpy");
    say(`${size}: memcpy ${round(p50("memcpy"))} ms, ours ${round(p50("create_and_write"))} ms`);
    ratios.push({
      what: `${size}: create and write on huge=within_size, no reserve, over memcpy`,
      ratio: over("create_and_write"),
      ...(target === undefined ? {} : { target }),
    });
    ratios.push({ what: `${size}: the creation alone, over memcpy`, ratio: over("create_alone") });
    ratios.push({ what: `${size}: SharedMemory and the same copy there, over memcpy`, ratio: over("shared_memory") });
    details[size] = summaries;
  }
  report({
    benchmark: "huge-mount",
    question:
      "create and write from a worker on a tmpfs with huge=within_size, over one single-threaded memcpy into warm pages",
    ratios,
    details,
  });
}
