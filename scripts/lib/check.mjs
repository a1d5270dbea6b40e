/** The gate: format, lint and types of both languages. All of it runs, side by side, and each result is printed as it comes. */

import { join } from "node:path";
import { root, run, secondsSince } from "./process.mjs";
import { python, pythonEnvironment } from "./python-packages.mjs";

const nodeTool = (name) => join(root, "node_modules/.bin", name);
const client = join(root, "clients/python");
const inClient = { cwd: client, env: pythonEnvironment() };

const biomeArguments = (fix) => [
  ...(fix ? ["check", "--write"] : ["ci"]),
  "--error-on-warnings",
  "--diagnostic-level=warn",
  // Biome writes colours even into a pipe when it believes to be in CI.
  `--colors=${process.stdout.isTTY ? "force" : "off"}`,
];

/** What runs. With `fix`, formatters and linters write what they can. */
function checks(fix) {
  return [
    { name: "biome", command: nodeTool("biome"), args: biomeArguments(fix) },
    // What it has found of files that nobody has changed since, nor what they import, it need not find again.
    {
      name: "tsc",
      command: nodeTool("tsc"),
      args: ["--noEmit", "--incremental", "--tsBuildInfoFile", join(root, ".tmp/types.tsbuildinfo")],
    },
    {
      name: "ruff check",
      command: python,
      args: ["-m", "ruff", "check", ...(fix ? ["--fix"] : [])],
      options: inClient,
    },
    {
      name: "ruff format",
      command: python,
      args: ["-m", "ruff", "format", ...(fix ? [] : ["--check"])],
      options: inClient,
    },
    { name: "mypy", command: python, args: ["-m", "mypy"], options: inClient },
  ];
}

async function runCheck({ name, command, args, options }, print) {
  const start = performance.now();
  const { status, output } = await run(command, args, { ...options, capture: true });
  const passed = status === 0;
  if (!passed) print(output.trimEnd());
  print(`${name}: ${passed ? "passed" : "failed"} in ${secondsSince(start)}`);
  return passed;
}

/**
 * Runs every check. The packages of both languages must be set up.
 *
 * @param {{ fix?: boolean, print?: (text: string) => void }} options
 * @returns whether all passed
 */
export async function runChecks({ fix = false, print = console.log } = {}) {
  // A fix rewrites files that the others read, so it goes first and alone.
  const [biome, tsc, ruffCheck, ruffFormat, mypy] = checks(fix);
  const groups = fix ? [[biome], [ruffCheck], [ruffFormat], [tsc, mypy]] : [[biome, tsc, ruffCheck, ruffFormat, mypy]];
  let passed = true;
  for (const group of groups) {
    const results = await Promise.all(group.map((check) => runCheck(check, print)));
    passed = results.every(Boolean) && passed;
  }
  return passed;
}
