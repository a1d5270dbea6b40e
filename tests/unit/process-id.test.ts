/** PIDs of other namespaces, found in trees that look like `/proc`. */

import { afterAll, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findPid, ownPidNamespace } from "../../src/memory/host/process-id.ts";

const folder = mkdtempSync(join(tmpdir(), "tensord-proc-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** A process as the server's `/proc` shows it: its PIDs from there to its own namespace, and that, if it may be seen. */
interface Shown {
  readonly pids: readonly number[];
  readonly namespace: string | undefined;
}

function makeProc(name: string, processes: readonly Shown[]): string {
  const proc = join(folder, name);
  for (const { pids, namespace } of processes) {
    const own = join(proc, String(pids[0]));
    mkdirSync(join(own, "ns"), { recursive: true });
    writeFileSync(join(own, "status"), `Name:\tpython\nNgid:\t0\nNSpid:\t${pids.join("\t")}\nNSsid:\t1\n`);
    if (namespace !== undefined) symlinkSync(namespace, join(own, "ns/pid"));
  }
  writeFileSync(join(proc, "meminfo"), "");
  mkdirSync(join(proc, "99999"));
  return proc;
}

const [host, inner, innermost] = ["pid:[1]", "pid:[2]", "pid:[3]"];
const proc = makeProc("proc", [
  { pids: [7], namespace: host },
  { pids: [100, 7], namespace: inner },
  { pids: [101, 8], namespace: inner },
  { pids: [200, 20, 7], namespace: innermost },
  { pids: [300, 9], namespace: undefined },
]);

test("a process is found by its namespace and what it is called there, however deep that is", async () => {
  expect(await findPid(inner, 7, proc)).toBe(100);
  expect(await findPid(inner, 8, proc)).toBe(101);
  expect(await findPid(innermost, 7, proc)).toBe(200);
});

test("what is another's, ours, nobody's, or not ours to look at is not found", async () => {
  expect(await findPid("pid:[4]", 7, proc)).toBeNull();
  expect(await findPid(host, 7, proc)).toBeNull();
  expect(await findPid(inner, 1, proc)).toBeNull();
  expect(await findPid(inner, 20, proc)).toBeNull();
  expect(await findPid(inner, 9, proc)).toBeNull();
});

test("where no process tells of its namespace there is none", () => {
  expect(ownPidNamespace(proc)).toBeUndefined();
  expect(ownPidNamespace()).toMatch(/^pid:\[\d+\]$/);
});
