/** The parts of the test run: what each runs, and how it is told where its report goes. Runs nothing by itself. */

import { mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { runChecks } from "./check.mjs";
import { executable, steppedExecutable } from "./executable.mjs";
import { root, run } from "./process.mjs";
import { python, pythonEnvironment } from "./python-packages.mjs";
import { bun } from "./server-packages.mjs";

/**
 * When one test is taken for hung, and killed. It is no verdict on the machine: whatever waits in a test waits for a
 * condition, and says in vain for which one long before.
 */
const testDeadlineMs = 5 * 60_000;

/** Those that tell much in little time, then the longest first, so that the lanes end together. Others come last. */
const order = ["check", "unit", "conformance", "faults", "integration", "python", "contract", "demo"];

/**
 * @typedef {object} Context what a part is given
 * @property {string} report where a JUnit file is to be written
 * @property {string} token what the names of everything that it makes in the shared memory directory contain
 * @property {number} jobs how many processes may run tests
 * @property {boolean} built whether the servers under test are executables, or run from the sources
 * @property {boolean} long whether the long form of random rounds is asked for
 * @property {(line: string) => void} onLine gets each line as it is printed
 * @property {(pid: number) => void} onStart is told of the process that leads
 *
 * @typedef {object} Part
 * @property {string} name
 * @property {string} kind what several of them have in common, to be chosen together
 * @property {boolean} tests whether it writes a report of tests
 * @property {(context: Context) => Promise<{ status: number }>} run
 */

/**
 * Most code of a test, and of a server that lives for a second, runs a few times: it is compiled once it has run ten times as often as
 * Bun would wait. That takes a sixth less of the processor, and what is hot is compiled all the same.
 */
const runtimeSettings = { BUN_JSC_thresholdForJITAfterWarmUp: "5000" };

/** Servers and clients under test get their settings from the test alone, not from the shell of whoever runs it. */
export function testEnvironment({ token, built, long }) {
  // Compiled once and kept: hundreds of processes import numpy, and torch costs each of them seconds without.
  const { PYTHONDONTWRITEBYTECODE: _, ...inherited } = pythonEnvironment();
  const own = Object.entries(inherited).filter(([name]) => !name.startsWith("TENSORD_"));
  const colors = process.stdout.isTTY ? { FORCE_COLOR: "1" } : {};
  return {
    ...Object.fromEntries(own),
    ...colors,
    ...runtimeSettings,
    TEST_TOKEN: token,
    ...(built && { TEST_EXECUTABLE: join(root, executable), TEST_STEPPED_EXECUTABLE: join(root, steppedExecutable) }),
    ...(long && { TEST_LONG: "1" }),
  };
}

/** Packages that a workspace in `tests/` has installed bring tests of their own, which are not ours. */
const isTest = (file) => file.endsWith(".test.ts") && !file.includes("node_modules");
const hasTests = (folder) => readdirSync(folder, { recursive: true }).some(isTest);

function testFolders() {
  const directory = join(root, "tests");
  return readdirSync(directory, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && hasTests(join(directory, entry.name)))
    .map((entry) => entry.name)
    .sort();
}

/**
 * Bun's test runner, a file at a time in each of its processes, the slowest of the last run first.
 *
 * @returns {Part}
 */
export function bunPart(name, filters) {
  return {
    name,
    kind: "bun",
    tests: true,
    run: (context) => {
      const timings = join(root, ".tmp/timings");
      mkdirSync(timings, { recursive: true });
      const options = [
        `--timeout=${testDeadlineMs}`,
        // One file after another has one process and its modules, as without --parallel; files tidy up behind themselves.
        // What runs beside others within a file waits for its turn there, which must not count as the time of a test.
        ...[`--parallel=${context.jobs}`, "--no-isolate", "--max-concurrency=2"],
        ...[`--timings=${join(timings, `${name}.json`)}`, "--update-timings"],
        ...["--reporter=junit", `--reporter-outfile=${context.report}`],
      ];
      const { onLine, onStart } = context;
      return run(bun, ["--no-env-file", "test", ...options, ...filters], {
        env: testEnvironment(context),
        onLine,
        onStart,
      });
    },
  };
}

/** @type {Part} */
const checkPart = {
  name: "check",
  kind: "check",
  tests: false,
  run: async ({ onLine }) => {
    const print = (text) => text.split("\n").map(onLine);
    return { status: (await runChecks({ print })) ? 0 : 1 };
  },
};

/** @type {Part} */
const pythonPart = {
  name: "python",
  kind: "python",
  tests: true,
  run: (context) => {
    const { report, jobs, onLine, onStart } = context;
    const options = [
      ...["--verbose", `--color=${process.stdout.isTTY ? "yes" : "no"}`],
      ...[`--numprocesses=${jobs}`, "--dist=worksteal"],
      `--timeout=${testDeadlineMs / 1000}`,
      `--junitxml=${report}`,
    ];
    return run(python, ["-m", "pytest", ...options], {
      cwd: join(root, "clients/python"),
      env: testEnvironment(context),
      onLine,
      onStart,
    });
  },
};

/** @type {Part} */
const demoPart = {
  name: "demo",
  kind: "demo",
  tests: false,
  run: (context) => {
    const { onLine, onStart } = context;
    return run(process.execPath, [join(root, "scripts/demo.mjs")], { env: testEnvironment(context), onLine, onStart });
  },
};

/** @returns {Part[]} in the order in which they are to begin */
export function allParts() {
  const rank = ({ name }) => order.indexOf(name) + 1 || order.length + 1;
  const folders = testFolders().map((name) => bunPart(name, [`./tests/${name}/`]));
  return [checkPart, ...folders, pythonPart, demoPart].sort((a, b) => rank(a) - rank(b));
}
