/**
 * A client's process as this one sees it. In a container a process has another PID than here, often 1, and who reads it must
 * not take some other process for it. Linux says in `/proc` what each process is called in each of its namespaces.
 */

import { readlinkSync } from "node:fs";
import { readdir, readFile, readlink } from "node:fs/promises";

/** What `/proc/<pid>/ns/pid` links to. */
export const pidNamespacePattern = /^pid:\[\d{1,20}\]$/;

/** This process's PID namespace, or undefined where there is no such thing. */
export function ownPidNamespace(proc = "/proc"): string | undefined {
  try {
    return readlinkSync(`${proc}/self/ns/pid`);
  } catch {
    return undefined;
  }
}

/**
 * The PID here of the process that is called `pid` in `namespace`, or null if none can be seen that surely is it: the
 * namespace is no child of ours, or its processes belong to somebody whom we may not look at.
 */
export async function findPid(namespace: string, pid: number, proc = "/proc"): Promise<number | null> {
  const pids = (await readdir(proc)).filter((name) => /^\d+$/.test(name)).map(Number);
  // Who tells of itself has mostly been started a moment ago.
  for (const candidate of pids.sort((a, b) => b - a)) {
    try {
      if (readInnermostPid(await readFile(`${proc}/${candidate}/status`, "utf8")) !== pid) continue;
      if ((await readlink(`${proc}/${candidate}/ns/pid`)) === namespace) return candidate;
    } catch {
      // It has ended, or is not ours to look at.
    }
  }
  return null;
}

/** What a process is called in its own PID namespace; undefined if that is the namespace of this `/proc` (proc_pid_status(5)). */
function readInnermostPid(status: string): number | undefined {
  const [, list = ""] = /^NSpid:\s+(.+)$/m.exec(status) ?? [];
  const pids = list.split(/\s+/);
  return pids.length < 2 ? undefined : Number(pids.at(-1));
}
