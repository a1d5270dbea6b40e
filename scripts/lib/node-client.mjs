/** The Node client's `dist`, built from its sources when they changed. The server never needs it. */

import { readdirSync } from "node:fs";
import { join } from "node:path";
import { Failure, root, run } from "./process.mjs";
import { fingerprint, once } from "./stamp.mjs";

const client = "clients/node";

/** Everything that the result follows from; the lock file stands for the compiler and the types. */
function inputs() {
  const sources = readdirSync(join(root, client, "src"), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name).slice(root.length + 1));
  const how = ["package.json", "tsconfig.json", "scripts/build.mjs"].map((file) => `${client}/${file}`);
  return ["package-lock.json", ...how, ...sources.sort()];
}

async function build(onStart) {
  const builder = join(root, client, "scripts/build.mjs");
  const { status, output } = await run(process.execPath, [builder], { capture: true, onStart });
  if (status === 0) return;
  throw new Failure(`Cannot build the Node client: it ended with status ${status} and said:\n${output.trimEnd()}`);
}

/** Makes `clients/node/dist` what the sources say. The server's packages must be set up. Takes milliseconds when it is. */
export async function setUpNodeClient() {
  const files = inputs();
  await once({
    title: "Building the Node client",
    lock: "node-client",
    stamp: ".tmp/node-client-set-up",
    result: `${client}/dist/cjs/package.json`,
    // The names too: a file that moved is another result.
    fingerprint: fingerprint(files, [process.version, ...files]),
    work: build,
  });
}
