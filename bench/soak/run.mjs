/** Sets up, reads the arguments, and runs a soak: everybody at once in Bun, or a test of the suite for longer. */

import { join } from "node:path";
import { parseArgs } from "node:util";
import { Failure, root, run } from "../../scripts/lib/process.mjs";
import { python, setUpPython } from "../../scripts/lib/python-packages.mjs";
import { bun, setUpPackages } from "../../scripts/lib/server-packages.mjs";

/** A kill of the server, its restart and all checks take about a third of a second. */
const killsAMinute = 170;
/** Connections that never ask, which the server ends beside others that are answered. */
const halfOpenAMinute = 100_000;

const soaks = {
  everybody: { minutes: 30, run: soakEverybody },
  web: { minutes: 5, run: soakWeb },
  server: { minutes: 5, run: soakServer },
  connections: { minutes: 1, run: soakConnections },
};

/**
 * @param {string[]} args `--web` for gunicorn's workers, `--server` for a server that is killed again and again, `--connections`
 *   for one whose descriptors are all taken, instead of everybody with workers that are killed; `--minutes` for how long
 * @returns the status to exit with: 1 if anything leaked
 */
export async function runSoak(args) {
  const { soak, minutes } = parse(args);
  await setUpPackages();
  const { status } = await soak.run(minutes);
  return status;
}

function soakEverybody(minutes) {
  return run(bun, ["--no-env-file", join(root, "bench/soak/everybody.ts"), String(minutes)]);
}

async function soakWeb(minutes) {
  await setUpPython();
  console.log(`gunicorn's workers are recycled for ${minutes} min; what was seen comes at the end`);
  return run(python, ["-m", "pytest", "-s", "-q", "tests/test_gunicorn.py"], {
    cwd: join(root, "clients/python"),
    env: { ...process.env, WEB_SOAK_SECONDS: String(minutes * 60) },
  });
}

function soakServer(minutes) {
  const kills = Math.ceil(minutes * killsAMinute);
  console.log(`the server is killed ${kills} times; what was seen comes at the end`);
  return run(bun, ["--no-env-file", "test", "./tests/faults/killed-at-random.test.ts"], {
    env: { ...process.env, TEST_ROUNDS: String(kills) },
  });
}

function soakConnections(minutes) {
  const total = Math.ceil(minutes * halfOpenAMinute);
  console.log(`${total} connections never ask, up to the limit at once`);
  return run(bun, ["--no-env-file", "test", "./tests/faults/few-descriptors.test.ts", "-t", "by the thousand"], {
    env: { ...process.env, TEST_ROUNDS: String(total) },
  });
}

function parse(args) {
  const others = Object.keys(soaks).filter((name) => name !== "everybody");
  const options = Object.fromEntries(others.map((name) => [name, { type: "boolean" }]));
  try {
    const { values } = parseArgs({ args, options: { ...options, minutes: { type: "string" } } });
    const [asked = "everybody", ...more] = others.filter((name) => values[name]);
    const minutes = values.minutes === undefined ? soaks[asked].minutes : Number(values.minutes);
    if (minutes > 0 && more.length === 0) return { soak: soaks[asked], minutes };
  } catch {
    // An argument that there is not, or one without its value.
  }
  throw new Failure(
    `Cannot soak with ${args.join(" ")}: want at most one of --web, --server, --connections, and --minutes above 0.`,
  );
}
