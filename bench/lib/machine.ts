/** The facts of the machine that a result was seen on: a number without them says nothing. */

import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, statfsSync } from "node:fs";
import { cpus, loadavg, release, totalmem } from "node:os";
import { join } from "node:path";
import { python, repository, serverTree } from "./places.ts";

export interface Machine {
  readonly processor: string;
  readonly cores: number;
  readonly memoryGiB: number;
  readonly kernel: string;
  readonly bun: string;
  readonly python: string;
  /** How the shared memory directory is mounted, and whether its files get huge pages. */
  readonly shm: string;
  readonly shmemHugePages: string;
  /** What was measured: commit, and whether the tree differs from it. */
  readonly commit: string;
  readonly server: string;
  /** Runnable processes at the start; near or above the cores, others were at work too. */
  readonly loadAverage: number;
}

export const shmDirectory = "/dev/shm";

export function readMachine(): Machine {
  const [first] = cpus();
  return {
    processor: first?.model ?? "unknown",
    cores: cpus().length,
    memoryGiB: round(totalmem() / 2 ** 30),
    kernel: release(),
    bun: Bun.version,
    python: output(python, ["-c", "import platform; print(platform.python_version())"]),
    shm: shmMount(),
    shmemHugePages: chosen("/sys/kernel/mm/transparent_hugepage/shmem_enabled"),
    commit: output("git", ["describe", "--always", "--dirty"], repository),
    server: serverTree === repository ? "this tree" : serverTree,
    loadAverage: round(loadavg()[0] ?? 0),
  };
}

/** Bytes that the shared memory directory has free. */
export function freeShmBytes(): number {
  const { bavail, bsize } = statfsSync(shmDirectory);
  return bavail * bsize;
}

function shmMount(): string {
  const mounts = readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" "));
  const mount = mounts.findLast(([, place]) => place === shmDirectory);
  return mount === undefined ? "not a mount of its own" : `${mount[2]} ${mount[3]}`;
}

/** The bracketed word of a sysfs setting such as `always [never]`. */
function chosen(path: string): string {
  return (existsSync(path) && /\[(.*?)\]/.exec(readFileSync(path, "utf8"))?.[1]) || "unknown";
}

function output(command: string, args: readonly string[], cwd = join(repository, "bench")): string {
  const { stdout, status } = spawnSync(command, args, { cwd, encoding: "utf8" });
  return status === 0 ? stdout.trim() : "unknown";
}

export function round(value: number, digits = 2): number {
  return Number(value.toFixed(digits));
}
