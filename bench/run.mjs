/** Runs benchmarks by name, each in a Bun of its own. */

import { readdirSync } from "node:fs";
import { join } from "node:path";
import { Failure, root, run } from "../scripts/lib/process.mjs";
import { setUpEngines, setUpPeers, setUpPython } from "../scripts/lib/python-packages.mjs";
import { bun, setUpPackages } from "../scripts/lib/server-packages.mjs";

const folder = join(root, "bench");

/**
 * @param {string[]} names of benchmarks; none means all
 * @returns the status to exit with
 */
export async function runBenchmarks(names) {
  const known = readdirSync(folder)
    .filter((file) => file.endsWith(".ts"))
    .map((file) => file.slice(0, -3));
  const unknown = names.find((name) => !known.includes(name));
  if (unknown !== undefined) throw new Failure(`Cannot run the benchmark ${unknown}: want one of ${known.join(", ")}.`);
  await setUpPackages();
  await setUpPython();
  if (names.length === 0 || names.includes("peers")) await setUpPeers();
  if (names.length === 0 || names.includes("engines")) await setUpEngines();
  let failures = 0;
  for (const name of names.length > 0 ? names : known) {
    console.log(`\n${name}`);
    const { status } = await run(bun, ["--no-env-file", join(folder, `${name}.ts`)]);
    if (status !== 0) failures += 1;
  }
  return failures > 0 ? 1 : 0;
}
