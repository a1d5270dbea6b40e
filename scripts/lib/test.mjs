/**
 * The whole test run: the gate, each folder of `tests/`, the Python client's tests, and the demo. Whatever a part comes
 * to, the others run too; results are printed as they come, what failed once more at the end, and one line of counts.
 */

import { randomBytes } from "node:crypto";
import { mkdirSync, rmSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { buildExecutable, buildSteppedExecutable } from "./executable.mjs";
import { setUpNodeClient } from "./node-client.mjs";
import { Failure, root, secondsSince } from "./process.mjs";
import { setUpFuzzer, setUpPython } from "./python-packages.mjs";
import { setUpPackages } from "./server-packages.mjs";
import { SilenceWatch } from "./silence.mjs";
import { checkSharedMemory, findLeft } from "./test-left.mjs";
import { allParts, bunPart } from "./test-parts.mjs";
import { closingLine, LineCounts, readReport, sum } from "./test-report.mjs";

const minuteMs = 60_000;
/** Longer than any test waits in silence, and than the long form of one takes on a slow machine. */
const silenceMs = { short: 15 * minuteMs, long: 240 * minuteMs };
/** Parts that run beside each other: each waits for its servers much of the time. */
const lanes = 3;
/** More processes would wait for memory rather than for each other. */
const mostJobs = 4;
/** Lines of a failure that are printed once more at the end: Bun says first what is wrong, pytest last. */
const shownLines = { first: 20, last: 40 };

const reports = join(root, ".tmp/reports");

/** @typedef {import("./test-parts.mjs").Part} Part */

function readArguments(args) {
  const only = [];
  const filters = [];
  let long = false;
  for (let index = 0; index < args.length; index++) {
    if (args[index] === "--only") only.push(args[++index]);
    else if (args[index] === "--long") long = true;
    else filters.push(args[index]);
  }
  return { only, filters, long };
}

/**
 * The parts that are asked for: `--only NAME`, any number of times, where `bun` is every folder of `tests/`; or paths
 * and flags for Bun's test runner, which runs alone then.
 *
 * @returns {Part[]}
 */
function choose({ only, filters }) {
  const parts = allParts();
  const names = [...new Set(parts.flatMap(({ name, kind }) => [kind, name]))];
  const unknown = only.find((name) => !names.includes(name));
  if ((only.length > 0 && unknown !== undefined) || only.includes(undefined)) {
    throw new Failure(`Cannot choose the part ${unknown ?? "after --only"}: want one of ${names.join(", ")}.`);
  }
  if (filters.length > 0) {
    if (only.length > 0)
      throw new Failure("Cannot use --only together with paths: paths go to Bun's test runner alone.");
    return [bunPart("bun", filters)];
  }
  return only.length === 0 ? parts : parts.filter(({ name, kind }) => only.includes(name) || only.includes(kind));
}

/** @param {Part} part */
async function runPart(part, { jobs, built, long, print }) {
  const report = join(reports, `${part.name}.xml`);
  // Its own alone: somebody may run other parts, or one file, at the same time.
  rmSync(report, { force: true });
  const token = randomBytes(4).toString("hex");
  const marks = [token];
  const lines = new LineCounts();
  const start = performance.now();
  print("started");
  const silence = new SilenceWatch(long ? silenceMs.long : silenceMs.short, print);
  const { status } = await part
    .run({
      ...{ report, token, jobs, built, long },
      onStart: (pid) => {
        silence.watch(pid);
        // The demo names its instance after itself.
        marks.push(`tensord.demo-${pid}`);
      },
      onLine: (line) => {
        silence.heard();
        if (part.tests) lines.add(line);
        print(line);
      },
    })
    .finally(() => silence.end());
  const { counts, failures } = readReport(report) ?? { counts: lines.counts, failures: [] };
  const left = findLeft(marks);
  if (left.length > 0) print(`left in the shared memory directory: ${left.join(", ")}`);
  const outcome = outcomeOf({
    ...{ hasKilled: silence.hasKilled, status, left },
    // A runner that finds no test may well be content; we are not.
    isEmpty: part.tests && counts.passed + counts.failed === 0,
  });
  const time = secondsSince(start);
  print(`${outcome} in ${time}`);
  const isUncounted = outcome !== "passed" && counts.failed === 0;
  // What failed without a failed test, such as the gate or a crash, is counted as one.
  return { name: part.name, outcome, counts: isUncounted ? { ...counts, failed: 1 } : counts, failures, time };
}

function outcomeOf({ hasKilled, status, isEmpty, left }) {
  if (hasKilled) return "failed, something hung";
  if (status !== 0) return "failed";
  if (isEmpty) return "failed, no test ran";
  return left.length > 0 ? "failed, something is left" : "passed";
}

/** Runs the parts in lanes beside each other: a lane that is done takes the next one. */
async function runLanes(parts, { isShared, built, long }) {
  const jobs = isShared ? Math.min(availableParallelism(), mostJobs) : 1;
  const width = Math.max(...parts.map(({ name }) => name.length));
  const toPrint = ({ name }) =>
    parts.length === 1 ? console.log : (line) => console.log(`${name.padEnd(width)} | ${line}`);
  const results = [];
  const waiting = [...parts];
  const runLane = async () => {
    for (let part = waiting.shift(); part !== undefined; part = waiting.shift()) {
      results.push(await runPart(part, { jobs, built, long, print: toPrint(part) }));
    }
  };
  // A lane that breaks, ours to mend or stopped by the user, leaves no other one behind.
  const broken = (await Promise.allSettled(Array.from({ length: isShared ? lanes : 1 }, runLane))).find(
    ({ status }) => status === "rejected",
  );
  if (broken !== undefined) throw broken.reason;
  return parts.map((part) => results.find(({ name }) => name === part.name));
}

function shorten(text) {
  const lines = text.split("\n");
  const { first, last } = shownLines;
  if (lines.length <= first + last) return text;
  const left = `… ${lines.length - first - last} lines, all of them in .tmp/reports …`;
  return [...lines.slice(0, first), left, ...lines.slice(-last)].join("\n");
}

function summarize(results, start) {
  for (const { name, failures } of results) {
    for (const { test, text } of failures) {
      console.log(`\n${name} FAILED ${test}\n${shorten(text)}`);
    }
  }
  console.log("");
  const width = Math.max(...results.map(({ name }) => name.length));
  for (const { name, outcome, counts, time } of results) {
    const told = counts.passed + counts.failed + counts.skipped === 0 ? "" : `, ${closingLine(counts)}`;
    console.log(`${name.padEnd(width)}  ${time.padStart(8)}  ${outcome}${told}`);
  }
  console.log(`${"all".padEnd(width)}  ${secondsSince(start).padStart(8)}\n`);
  console.log(closingLine(sum(results.map(({ counts }) => counts))));
}

/**
 * Sets up, runs the parts that `args` choose, and prints a summary.
 *
 * @param {string[]} args
 * @returns the status to exit with
 */
export async function runTests(args) {
  const asked = readArguments(args);
  await setUpPackages();
  await setUpNodeClient();
  const parts = choose(asked);
  const isShared = parts.some(({ kind }) => kind !== "check") ? checkSharedMemory() : true;
  await setUpPython();
  await setUpFuzzer();
  // Who gives paths works on a server that changes, and waits for the result: its sources will do.
  const built = asked.filters.length === 0 && parts.some(({ tests }) => tests);
  if (built) {
    await buildExecutable();
    await buildSteppedExecutable();
  }
  mkdirSync(reports, { recursive: true });
  const start = performance.now();
  const results = await runLanes(parts, { isShared, built, long: asked.long });
  summarize(results, start);
  return results.some(({ outcome }) => outcome !== "passed") ? 1 : 0;
}
