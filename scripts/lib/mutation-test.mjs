/**
 * Runs in the copy what judges a mutation: whether the mutated file can be loaded at all, and a test. Nothing that was
 * started there outlives its run.
 */

import { randomBytes } from "node:crypto";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { copy } from "./mutation-copy.mjs";
import { killGroup, run } from "./process.mjs";
import { findLeft, shmDirectory } from "./test-left.mjs";
import { testEnvironment } from "./test-parts.mjs";
import { readReport } from "./test-report.mjs";

/** For a test of the code as it is, as in `npm test`. A loop without an end keeps even the runner from saying so. */
export const patient = { testMs: 5 * 60_000, runMs: 30 * 60_000 };

/**
 * A mistake may well make a test wait for ever: it waits less long than in `npm test`, and longer where the machine is slow.
 *
 * @param {number} unmutatedMs what the tests of its file took on the code as it is
 */
export const impatient = (unmutatedMs) => {
  const testMs = Math.max(60_000, Math.ceil(3 * unmutatedMs));
  return { testMs, runMs: 5 * testMs };
};

const pythonClient = "clients/python/";
const bun = join(copy, "node_modules/.bin/bun");
const python = join(copy, ".venv/bin/python");
const report = join(copy, ".tmp/mutation.xml");
/** What the names of everything that the tests make in the shared memory directory contain. */
const token = randomBytes(4).toString("hex");

/** Runs something in the copy, to its end and that of everything that it started. */
async function runInCopy(command, args, { folder = "", runMs = patient.runMs } = {}) {
  let leader;
  const end = () => leader !== undefined && killGroup(leader, "SIGKILL");
  const timer = setTimeout(end, runMs);
  try {
    return await run(command, args, {
      cwd: join(copy, folder),
      // Of a file that changes twice within a second bytecode would be stale.
      env: { ...testEnvironment({ token, built: false, long: false }), PYTHONDONTWRITEBYTECODE: "1" },
      capture: true,
      onStart: (pid) => {
        leader = pid;
      },
    });
  } finally {
    clearTimeout(timer);
    end();
    for (const name of findLeft([token])) rmSync(join(shmDirectory, name), { recursive: true, force: true });
  }
}

/**
 * Runs the tests of a file, or those that are named. The first failure is enough.
 *
 * @param {[path: string, ...named: string[]]} test
 * @param {{ testMs: number, runMs: number }} deadlines
 * @returns {Promise<{ status: number, output: string, passed: string[], failed: string[] }>} the tests that passed, and failed
 */
export async function runTest([path, ...named], { testMs, runMs }) {
  rmSync(report, { force: true });
  const [command, args, folder] = toCommand(path, named, testMs);
  const { status, output } = await runInCopy(command, args, { folder, runMs });
  const { passed, failures } = readReport(report) ?? { passed: [], failures: [] };
  // Where pytest says `error` it could not import or set up; where a file cannot be loaded Bun reports no test at all.
  const failed = failures.filter(({ isError }) => !isError).map(({ test }) => test);
  return { status, output, passed, failed };
}

/** Bun takes a regular expression. */
const toPattern = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

function toCommand(path, named, testMs) {
  if (path.startsWith(pythonClient)) {
    const file = path.slice(pythonClient.length);
    const filter = named.length === 0 ? [] : ["-k", named.join(" or ")];
    return [
      python,
      ["-m", "pytest", "--exitfirst", `--timeout=${testMs / 1000}`, `--junitxml=${report}`, file, ...filter],
      pythonClient,
    ];
  }
  const options = [
    "--bail",
    "--max-concurrency=2",
    `--timeout=${testMs}`,
    "--reporter=junit",
    `--reporter-outfile=${report}`,
  ];
  const filter = named.length === 0 ? [] : ["-t", named.map(toPattern).join("|")];
  return [bun, ["--no-env-file", "test", ...options, `./${path}`, ...filter]];
}

/**
 * Whether the mutated file can be loaded at all: where it cannot, no test is to be credited for that. The Node client is
 * compiled by its own tests, which are skipped if that fails.
 */
export async function load(file) {
  if (file.startsWith("clients/node/")) return { status: 0, output: "" };
  if (file.startsWith(pythonClient)) return runInCopy(python, ["-c", "import tensord"]);
  // Imported outside of a Worker it would wait for messages.
  if (file.endsWith(".worker.ts")) return runInCopy(bun, ["build", "--no-bundle", join(copy, file)]);
  return runInCopy(bun, ["--no-env-file", "-e", `await import(${JSON.stringify(join(copy, file))})`]);
}
