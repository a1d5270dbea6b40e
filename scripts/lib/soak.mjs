/** Sets up, reads the arguments, and runs the soak itself in Bun, which it shares the tests' harness with. */

import { join } from "node:path";
import { Failure, root, run } from "./process.mjs";
import { bun, setUpServer } from "./server-packages.mjs";

const defaultMinutes = 30;

/**
 * @param {string[]} args
 * @returns the status to exit with: 1 if anything leaked
 */
export async function runSoak(args) {
  const [flag, value = ""] = args;
  const minutes = flag === undefined ? defaultMinutes : Number(value);
  if (args.length > 2 || (flag !== undefined && flag !== "--minutes") || !(minutes > 0)) {
    throw new Failure(`Cannot soak with ${args.join(" ")}: want --minutes and a number above 0, or nothing.`);
  }
  await setUpServer();
  const { status } = await run(bun, ["--no-env-file", join(root, "scripts/lib/soak-run.mjs"), String(minutes)]);
  return status;
}
