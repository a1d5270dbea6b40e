/** What some tests need of the host. Each need is a reason to skip, or undefined where the host has it. */

import { test } from "bun:test";
import { closeSync, existsSync, openSync, readFileSync, statfsSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { globalLimit } from "../../src/memory/host/capacity.ts";
import { findMemoryLimits } from "../../src/memory/host/cgroup.ts";
import { fallocate } from "../../src/memory/os/libc.ts";
import { collapsePages } from "../../src/memory/os/libc-pages.ts";
import { defaultShmDirectory, testToken } from "./instance.ts";

/** The repository's root. */
export const root = join(import.meta.dirname, "../..");

const MiB = 2 ** 20;
const GiB = 2 ** 30;

export const needsRoot = process.getuid?.() === 0 ? undefined : "needs root, to take other uids and to mount";

export const python = ["python3", "python"].map((name) => Bun.which(name)).find((path) => path !== null);
export const needsPython = python === undefined ? "needs python3" : undefined;

/** The Python that has stock readers (numpy, safetensors): the one that `npm test` sets up, or TEST_PYTHON. */
export const stockPython = process.env.TEST_PYTHON ?? join(root, ".venv/bin/python");
export const needsStockPython = existsSync(stockPython) ? undefined : "needs .venv, which `npm test` makes";

/** The checkout must be readable by the uid of `nobody`, or nothing can run under it. */
export function needsReadableCheckout(): string | undefined {
  if (needsRoot !== undefined) return needsRoot;
  const probe = Bun.spawnSync([
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    process.execPath,
    "--version",
  ]);
  return probe.exitCode === 0 ? undefined : `needs a checkout that uid 65534 can read; ${root} is not`;
}

/** A command line's beginning under which the kernel has no inotify instance to give. */
export const withoutInotify = [
  "unshare",
  "--user",
  "--map-root-user",
  "sh",
  "-c",
  'echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"',
  "sh",
];

export const needsUserNamespaces =
  Bun.which("unshare") !== null && Bun.spawnSync([...withoutInotify, "true"]).exitCode === 0
    ? undefined
    : "needs user namespaces, to take inotify away";

/** @param shmBytes to be free in /dev/shm, within what a server may take of it, and as memory with a margin for others. */
export function needsRoom(shmBytes: number): string | undefined {
  const { bavail, blocks, bsize } = statfsSync(defaultShmDirectory);
  const available = /^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync("/proc/meminfo", "utf8"))?.[1];
  const { limitBytes } = globalLimit({
    settingBytes: undefined,
    tmpfsBytes: blocks * bsize,
    memoryLimits: findMemoryLimits(readIfThere),
  });
  const rooms = { [`free in ${defaultShmDirectory}`]: bavail * bsize, "for a server's pool": limitBytes };
  for (const [where, bytes] of Object.entries({ ...rooms, "of memory to spare": Number(available) * 1024 - GiB })) {
    if (bytes < shmBytes)
      return `needs ${Math.ceil(shmBytes / MiB)} MiB ${where}: ${Math.floor(bytes / MiB)} are there`;
  }
  return undefined;
}

/** Whether the kernel makes a huge page of a file's small ones now. One that has none free may have some later. */
export function needsCollapse(): string | undefined {
  const path = join(defaultShmDirectory, `collapse-${testToken}-${crypto.randomUUID()}`);
  const fd = openSync(path, "wx+", 0o600);
  unlinkSync(path);
  try {
    fallocate(fd, 0, 2 * MiB);
    const { hugeChunks, refusal = "a chunk stayed small" } = collapsePages(fd, 0, 2 * MiB);
    return hugeChunks === 1 ? undefined : `needs huge pages in ${defaultShmDirectory} (MADV_COLLAPSE: ${refusal})`;
  } finally {
    closeSync(fd);
  }
}

/** @param count of files that a test's server has open at once. `TEST_OPEN_FILES` may allow fewer. */
export function needsOpenFiles(count: number): string | undefined {
  const allowed = Number(process.env.TEST_OPEN_FILES ?? Number.POSITIVE_INFINITY);
  return allowed >= count ? undefined : `needs a server that may open ${count} files: TEST_OPEN_FILES is ${allowed}`;
}

function readIfThere(path: string): string | undefined {
  return existsSync(path) ? readFileSync(path, "utf8") : undefined;
}

/** `test`, or a skipped one that says why if one of the needs is not met. */
export function testWith(...needs: (string | undefined)[]) {
  return declareWith(test, needs);
}

/** As `testWith`, for tests of a file that share nothing and run beside each other. */
export function concurrentTestWith(...needs: (string | undefined)[]) {
  return declareWith(test.concurrent, needs);
}

function declareWith(declareTest: typeof test.concurrent, needs: readonly (string | undefined)[]) {
  const reason = needs.find((need) => need !== undefined);
  return function declare(claim: string, run: () => Promise<void>, timeoutMs?: number): void {
    if (reason === undefined) declareTest(claim, () => run().catch(throwFirst), timeoutMs);
    else test.skip(`${claim} [${reason}]`, run);
  };
}

/** Of an error and those that disposal met after it, throws the first and prints the others: the runner shows neither. */
function throwFirst(error: unknown): never {
  let first = error;
  while (first instanceof SuppressedError) {
    console.error("and then, while it was taken down:", first.error);
    first = first.suppressed;
  }
  throw first;
}
