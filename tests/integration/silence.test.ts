/** What `npm test` does with a test that never comes back, not even to its runner: its file is named, and the others count. */

import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { python, root, stockPython } from "../harness/instance-needs.ts";

const { run } = await import(join(root, "scripts/lib/process.mjs"));
const { SilenceWatch } = await import(join(root, "scripts/lib/silence.mjs"));

interface Outcome {
  readonly status: number;
  readonly said: string;
  readonly told: readonly string[];
}

/** Runs a command until it ends, by itself or because nothing was heard of it since it said `last`. */
async function watch(command: string, args: readonly string[], cwd: string, last: RegExp): Promise<Outcome> {
  const told: string[] = [];
  const said: string[] = [];
  const silence = new SilenceWatch(2000, (text: string) => told.push(text));
  let pid = 0;
  const onLine = (line: string) => {
    silence.heard();
    said.push(line);
    if (last.test(line)) silence.watch(pid);
  };
  const onStart = (started: number) => {
    pid = started;
  };
  try {
    const { status } = await run(command, args, { cwd, onLine, onStart });
    return { status, said: said.join("\n"), told };
  } finally {
    silence.end();
  }
}

test("a loop in one file of two is named, and the results of the other stay", async () => {
  const folder = mkdtempSync(join(tmpdir(), "tensord-test-"));
  try {
    const head = 'import { test } from "bun:test";\n';
    writeFileSync(join(folder, "endless.test.ts"), `${head}test("never", () => { for (;;) Bun.sleepSync(100); });`);
    writeFileSync(join(folder, "other.test.ts"), `${head}test("one", () => {}); test("two", () => {});`);
    const args = ["test", "--parallel=2", "--parallel-delay=0", "--timeout=100"];
    const { status, said, told } = await watch(process.execPath, args, folder, /two/);
    expect(told).toEqual([expect.stringMatching(/^nothing was heard for \d+ s: killing its processes$/)]);
    expect(status).not.toBe(0);
    expect(said).toMatch(/endless\.test\.ts \(worker crashed: SIGKILL\)/);
    expect(said).toMatch(/ 2 pass\n/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("what has no processes for its tests is killed whole", async () => {
  const endless = "import time; print('begins', flush=True); time.sleep(600)";
  const { status, said, told } = await watch(python ?? stockPython, ["-c", endless], root, /begins/);
  expect([status, said]).toEqual([137, "begins"]);
  expect(told).toEqual([expect.stringMatching(/: killing it$/)]);
});
