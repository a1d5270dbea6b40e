/** Sets up, reads the arguments, and runs a soak: the server's in Bun, that of web workers as the test that it is. */

import { join } from "node:path";
import { parseArgs } from "node:util";
import { Failure, root, run } from "./process.mjs";
import { python, setUpPython } from "./python-packages.mjs";
import { bun, setUpServer } from "./server-packages.mjs";

const minutesOf = { server: 30, web: 5 };

/**
 * @param {string[]} args `--web` for gunicorn's workers instead of the server with everybody, `--minutes` for how long
 * @returns the status to exit with: 1 if anything leaked
 */
export async function runSoak(args) {
  const { web, minutes } = parse(args);
  await setUpServer();
  if (!web) {
    const { status } = await run(bun, ["--no-env-file", join(root, "scripts/lib/soak-run.mjs"), String(minutes)]);
    return status;
  }
  await setUpPython();
  console.log(`gunicorn's workers are recycled for ${minutes} min; what was seen comes at the end`);
  const { status } = await run(python, ["-m", "pytest", "-s", "-q", "tests/test_gunicorn.py"], {
    cwd: join(root, "clients/python"),
    env: { ...process.env, WEB_SOAK_SECONDS: String(minutes * 60) },
  });
  return status;
}

function parse(args) {
  try {
    const { values } = parseArgs({ args, options: { web: { type: "boolean" }, minutes: { type: "string" } } });
    const web = values.web === true;
    const minutes = values.minutes === undefined ? minutesOf[web ? "web" : "server"] : Number(values.minutes);
    if (minutes > 0) return { web, minutes };
  } catch {
    // An argument that there is not, or one without its value.
  }
  throw new Failure(
    `Cannot soak with ${args.join(" ")}: want --minutes with a number above 0, --web, both, or neither.`,
  );
}
