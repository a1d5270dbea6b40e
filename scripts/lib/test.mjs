/**
 * The whole test run: the gate, each folder of `tests/` in a Bun of its own, the Python client's tests, and the demo. It
 * stops at the first step that fails and ends with one line of counts.
 */

import { existsSync, mkdirSync, readdirSync, rmSync, statfsSync } from "node:fs";
import { join } from "node:path";
import { runChecks } from "./check.mjs";
import { setUpNodeClient } from "./node-client.mjs";
import { Failure, root, run, secondsSince } from "./process.mjs";
import { python, pythonEnvironment, setUpPython } from "./python-packages.mjs";
import { bun, setUpServer } from "./server-packages.mjs";
import { closingLine, readCounts, sum } from "./test-report.mjs";

const MiB = 1024 * 1024;
const shmDirectory = "/dev/shm";
const shmMinimumBytes = 128 * MiB;

/** A test that waits for processes and memory needs more than Bun's 5 s; `bunfig.toml` has no setting for it. */
const testTimeoutMs = 20_000;
const stepDeadlineMs = 8 * 60_000;

/** Quick ones first. A folder that is not named here runs too, after these. */
const folderOrder = ["unit", "conformance", "contract", "integration", "faults"];

const reports = join(root, ".tmp/reports");

/**
 * @typedef {{ name: string, kind: string, tests: boolean, run: (report: string) => Promise<{ status: number, late?: boolean }> }} Step
 *   `tests` says that the step writes a report of tests to the path that it is given
 */

/** Servers and clients under test get their settings from the test alone, not from the shell of whoever runs it. */
function testEnvironment() {
  const own = Object.entries(pythonEnvironment()).filter(([name]) => !name.startsWith("TENSORD_"));
  return Object.fromEntries(own);
}

function testFolders() {
  const directory = join(root, "tests");
  if (!existsSync(directory)) return [];
  const rank = (name) => folderOrder.indexOf(name) + 1 || folderOrder.length + 1;
  return readdirSync(directory, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && hasTests(join(directory, entry.name)))
    .map((entry) => entry.name)
    .sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
}

/** Packages that a workspace in `tests/` has installed bring tests of their own, which are not ours. */
const isTest = (file) => file.endsWith(".test.ts") && !file.includes("node_modules");
const hasTests = (folder) => readdirSync(folder, { recursive: true }).some(isTest);

/** @returns {Step} */
const bunStep = (name, filters) => ({
  name,
  kind: "bun",
  tests: true,
  run: (report) =>
    run(
      bun,
      [
        "--no-env-file",
        "test",
        `--timeout=${testTimeoutMs}`,
        "--reporter=junit",
        `--reporter-outfile=${report}`,
        ...filters,
      ],
      {
        env: testEnvironment(),
        deadlineMs: stepDeadlineMs,
      },
    ),
});

/** @type {Step} */
const checkStep = {
  name: "check",
  kind: "check",
  tests: false,
  run: async () => ({ status: (await runChecks()) ? 0 : 1 }),
};

/** @type {Step} */
const pythonStep = {
  name: "python",
  kind: "python",
  tests: true,
  run: (report) =>
    run(python, ["-m", "pytest", `--junitxml=${report}`], {
      cwd: join(root, "clients/python"),
      env: testEnvironment(),
      deadlineMs: stepDeadlineMs,
    }),
};

/** @type {Step} */
const demoStep = {
  name: "demo",
  kind: "demo",
  tests: false,
  run: () =>
    run(process.execPath, [join(root, "scripts/demo.mjs")], { env: testEnvironment(), deadlineMs: stepDeadlineMs }),
};

function allSteps() {
  const demo = existsSync(join(root, "scripts/demo.mjs")) ? [demoStep] : [];
  return [checkStep, ...testFolders().map((name) => bunStep(name, [`./tests/${name}/`])), pythonStep, ...demo];
}

/**
 * The steps that the arguments ask for: `--only NAME`, any number of times, where `bun` is every folder of `tests/`; or
 * paths and flags for Bun's test runner, which run alone.
 */
function chosenSteps(args) {
  const steps = allSteps();
  const only = [];
  const filters = [];
  for (let index = 0; index < args.length; index++) {
    if (args[index] === "--only") only.push(args[++index]);
    else filters.push(args[index]);
  }
  const names = [...new Set(steps.flatMap(({ name, kind }) => [kind, name]))];
  const unknown = only.find((name) => !names.includes(name));
  if ((only.length > 0 && unknown !== undefined) || only.includes(undefined)) {
    throw new Failure(`Cannot choose the step ${unknown ?? "after --only"}: want one of ${names.join(", ")}.`);
  }
  if (filters.length > 0) {
    if (only.length > 0)
      throw new Failure("Cannot use --only together with paths: paths go to Bun's test runner alone.");
    return [bunStep("bun", filters)];
  }
  return only.length === 0 ? steps : steps.filter(({ name, kind }) => only.includes(name) || only.includes(kind));
}

function needSharedMemory() {
  if (!existsSync(shmDirectory)) {
    throw new Failure(
      `Cannot test: there is no ${shmDirectory} here, and the tests need a tmpfs there. Run them on Linux.`,
    );
  }
  const { bsize, blocks } = statfsSync(shmDirectory);
  const size = bsize * blocks;
  if (size >= shmMinimumBytes) return;
  throw new Failure(
    `Cannot test: ${shmDirectory} holds ${Math.floor(size / MiB)} MiB, want at least ${shmMinimumBytes / MiB} MiB. Enlarge it: ` +
      `\`mount -o remount,size=1G ${shmDirectory}\` as root, or start the container with \`docker run --shm-size=1g\`.`,
  );
}

/** Every instance that has something in the shared memory directory, other people's included. */
const instances = () => new Set(readdirSync(shmDirectory).flatMap((name) => /^tensord\.[^.]+/.exec(name)?.[0] ?? []));

/** What a step left in the shared memory directory: instances that were not there before it. */
function leftOver(before) {
  const names = [...instances()].filter((name) => !before.has(name));
  if (names.length > 0) console.log(`left in ${shmDirectory}, or made by somebody else meanwhile: ${names.join(", ")}`);
  return names.length > 0;
}

async function runStep(step) {
  console.log(`\n${step.name}: started`);
  const start = performance.now();
  const before = instances();
  const report = join(reports, `${step.name}.xml`);
  const { status, late = false } = await step.run(report);
  const counts = readCounts(report);
  // A runner that finds no test may well be content; we are not.
  const empty = step.tests && counts.passed + counts.failed === 0;
  const outcome = late
    ? "failed, past its deadline"
    : status !== 0
      ? "failed"
      : empty
        ? "failed, no test ran"
        : leftOver(before)
          ? "failed, regions are left"
          : "passed";
  const failed = outcome !== "passed";
  const result = { name: step.name, outcome, failed, counts, time: secondsSince(start) };
  console.log(`${step.name}: ${outcome} in ${result.time}`);
  // What failed without a failed test, such as the gate or a crash, is counted as one.
  return failed && counts.failed === 0 ? { ...result, counts: { ...counts, failed: 1 } } : result;
}

async function runSteps(steps) {
  rmSync(reports, { recursive: true, force: true });
  mkdirSync(reports, { recursive: true });
  const results = [];
  for (const step of steps) {
    const result = await runStep(step);
    results.push(result);
    if (result.failed) break;
  }
  return results;
}

function summarize(steps, results, total) {
  console.log("");
  for (const [index, { name }] of steps.entries()) {
    const result = results[index];
    console.log(result ? `${name}: ${result.outcome} in ${result.time}` : `${name}: not run`);
  }
  console.log(closingLine(total));
}

/**
 * Sets up, runs the steps that `args` choose, and prints a summary.
 *
 * @param {string[]} args
 * @returns the status to exit with
 */
export async function runTests(args) {
  await setUpServer();
  await setUpNodeClient();
  const steps = chosenSteps(args);
  if (steps.some(({ kind }) => kind !== "check")) needSharedMemory();
  await setUpPython();
  const results = await runSteps(steps);
  const total = sum(results.map(({ counts }) => counts));
  summarize(steps, results, total);
  return total.failed > 0 ? 1 : 0;
}
