/** What the demo needs beside the server and the clients: a real model, and the library that it is made for. */

import { join } from "node:path";
import { setUpNodeClient } from "../scripts/lib/node-client.mjs";
import { Failure, root, run } from "../scripts/lib/process.mjs";
import { python, pythonEnvironment, setUpPython } from "../scripts/lib/python-packages.mjs";
import { setUpServer } from "../scripts/lib/server-packages.mjs";
import { fingerprint, once } from "../scripts/lib/stamp.mjs";

const lockFile = "demo/requirements.lock";

async function installPackages(onStart) {
  const args = ["-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--no-deps", "--require-hashes"];
  const options = { capture: true, env: pythonEnvironment(), onStart };
  const { status, output } = await run(python, [...args, "--requirement", join(root, lockFile)], options);
  if (status === 0) return;
  const tail = output.trimEnd().split("\n").slice(-15).join("\n");
  throw new Failure(`Cannot install the demo's packages: pip ended with status ${status} and said:\n${tail}`);
}

/** Server, clients, weights and library. Takes a fraction of a second when they are there. */
export async function setUpDemo() {
  await setUpServer();
  await setUpNodeClient();
  await setUpPython();
  await once({
    title: "Installing the demo's model and its library (310 MB, a quarter of it the weights)",
    lock: "python-packages",
    stamp: ".venv/.tensord-demo",
    // In the environment, so that a new environment means a new installation.
    result: ".venv/bin/python",
    fingerprint: fingerprint([lockFile], []),
    work: installPackages,
  });
}
