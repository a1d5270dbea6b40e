/** Sets up what every row of the generator check may need of the repository, and runs the check in Bun. */

import { join } from "node:path";
import { root, run } from "./process.mjs";
import { setUpPython } from "./python-packages.mjs";
import { bun, setUpPackages } from "./server-packages.mjs";

/**
 * @param {string[]} args rows by name, or `--list`
 * @returns the status to exit with: 1 if a row failed
 */
export async function checkGenerators(args) {
  await setUpPackages();
  if (!args.includes("--list")) await setUpPython();
  const { status } = await run(bun, ["--no-env-file", join(root, "tests/generators/check.ts"), ...args]);
  return status;
}
