/** Runs a Python or Node half of a benchmark: it prints one JSON value, and is run again if others disturbed it. */

import { join } from "node:path";
import { round } from "./machine.ts";
import { node, python, repository } from "./places.ts";
import { say } from "./result.ts";
import { OthersWatch } from "./room.ts";

const triesMost = 4;

/**
 * Runs `bench/<script>` until a run was undisturbed, and gives what it printed; of the last try whatever it was.
 * @param pids processes whose work is part of what is measured.
 * @param environment what it has beside this process's.
 */
export async function runPython<Output>(
  script: string,
  args: readonly string[],
  pids: readonly number[],
  environment: Readonly<Record<string, string>> = {},
): Promise<Output> {
  return runQuiet(python, script, args, pids, environment);
}

/** As `runPython`, in Node; what the Node client is built of is found as `clients/node/dist`. */
export async function runNode<Output>(
  script: string,
  args: readonly string[],
  pids: readonly number[],
): Promise<Output> {
  const builder = `await (await import("./scripts/lib/node-client.mjs")).setUpNodeClient()`;
  const { success, stderr } = Bun.spawnSync([node, "--input-type=module", "--eval", builder], { cwd: repository });
  if (!success) throw new Error(`Cannot build the Node client: ${stderr}`);
  return runQuiet(node, script, args, pids, {});
}

/**
 * Runs `bench/<script>` once, whatever others do, and gives what it printed: for bytes, which do not depend on that.
 * @param environment what it has beside this process's.
 */
export async function runAnyway<Output>(
  interpreter: string,
  script: string,
  args: readonly string[],
  environment: Readonly<Record<string, string>>,
): Promise<Output> {
  return JSON.parse((await runOnce(interpreter, script, args, [], environment)).output) as Output;
}

async function runQuiet<Output>(
  interpreter: string,
  script: string,
  args: readonly string[],
  pids: readonly number[],
  environment: Readonly<Record<string, string>>,
): Promise<Output> {
  for (let tries = 1; ; tries++) {
    const { output, others } = await runOnce(interpreter, script, args, pids, environment);
    if (others.isQuiet) return JSON.parse(output) as Output;
    const cores = `others used ${round(others.cores)} cores during ${script}`;
    if (tries === triesMost) {
      say(`note   ${cores}, and in ${triesMost - 1} runs before: times are high and ratios uncertain`);
      return JSON.parse(output) as Output;
    }
    say(`again  ${cores}`);
  }
}

async function runOnce(
  interpreter: string,
  script: string,
  args: readonly string[],
  pids: readonly number[],
  environment: Readonly<Record<string, string>>,
) {
  const watch = new OthersWatch([process.pid, ...pids]);
  const child = Bun.spawn([interpreter, join(repository, "bench", script), ...args], {
    env: { ...process.env, PYTHONPATH: join(repository, "clients/python/src"), ...environment },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const output = await child.stdout.text();
  const status = await child.exited;
  const childSeconds = Number(child.resourceUsage()?.cpuTime.total ?? 0) / 1e6;
  const cores = watch.cores(childSeconds);
  if (status !== 0) throw new Error(`${script} ended with ${status}`);
  return { output, others: { cores, isQuiet: watch.isQuiet(childSeconds) } };
}
