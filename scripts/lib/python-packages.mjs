/**
 * The virtual environment `.venv` for tests and checks: the exact packages of `clients/python/requirements.lock` and the
 * client itself, editable. The server never needs it.
 */

import { rmSync } from "node:fs";
import { join } from "node:path";
import { Failure, root, run } from "./process.mjs";
import { fingerprint, once } from "./stamp.mjs";

const venv = join(root, ".venv");
const client = join(root, "clients/python");
const lockFile = "clients/python/requirements.lock";

const pythonPath = ".venv/bin/python";

/** The environment's interpreter. */
export const python = join(root, pythonPath);

// The oldest Python that the locked numpy takes.
const minimumMinor = 11;
const candidates = ["python3", "python3.14", "python3.13", "python3.12", "python3.11"];

const networkErrors =
  /(NewConnectionError|NameResolutionError|ConnectTimeoutError|ReadTimeoutError|ProxyError|Temporary failure in name resolution|Network is unreachable)/;

/** Variables that would send an environment's interpreter to modules outside of it. */
export const pythonEnvironment = () => {
  const { PYTHONPATH: _path, PYTHONHOME: _home, PIP_USER: _user, PIP_TARGET: _target, ...rest } = process.env;
  return rest;
};

const runPython = (command, args, options) =>
  run(command, args, { capture: true, env: pythonEnvironment(), ...options });

/** The first Python that is new enough and can make virtual environments, with its version and place. */
async function findPython() {
  const program = [
    "import ensurepip, platform, sys, venv",
    `assert sys.version_info[:2] >= (3, ${minimumMinor})`,
    "print(platform.python_version(), sys.base_prefix)",
  ].join("\n");
  for (const command of candidates) {
    const { status, output } = await runPython(command, ["-c", program]);
    if (status === 0) return { command, identity: output.trim() };
  }
  return undefined;
}

/** Debian keeps the venv module in a package of its own, which root can add without asking. */
async function installVenvModule() {
  if (process.getuid?.() !== 0) return;
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  const update = await run("apt-get", ["update"], { capture: true, env });
  if (update.missing) return;
  console.error("Installing python3-venv (apt-get) …");
  await run("apt-get", ["install", "-y", "--no-install-recommends", "python3-venv"], { capture: true, env });
}

async function needPython() {
  const found = await findPython();
  if (found) return found;
  await installVenvModule();
  const installed = await findPython();
  if (installed) return installed;
  throw new Failure(
    `Cannot set up the Python environment: no Python 3.${minimumMinor} or newer with its venv module was found, and ` +
      "tests and checks of the Python client need one. Install it (Debian and Ubuntu: `apt-get install python3 " +
      "python3-venv`) and run the command again. The server itself runs without Python: `npm start`.",
  );
}

async function step(what, command, args, onStart) {
  const { status, output } = await runPython(command, args, { onStart });
  if (status === 0) return;
  if (networkErrors.test(output)) {
    throw new Failure(
      `Cannot ${what}: the Python package index cannot be reached. Connect this machine to the network, or tell pip of ` +
        "your proxy or mirror (PIP_PROXY, PIP_INDEX_URL), and run the command again.",
    );
  }
  const tail = output.trimEnd().split("\n").slice(-30).join("\n");
  throw new Failure(`Cannot ${what}: the command ended with status ${status} and said:\n${tail}`);
}

const pipInstall = ["-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--no-deps", "--no-compile"];

async function installPackages(command, onStart) {
  rmSync(venv, { recursive: true, force: true });
  await step("make the virtual environment .venv", command, ["-m", "venv", venv], onStart);
  // The lock file is complete, and leaves out on purpose what pip would add (see its head): hence --no-deps.
  await step("install the Python packages", python, [...pipInstall, "--requirement", join(root, lockFile)], onStart);
}

/** The build backend comes from the lock file too; pip would otherwise fetch one that nothing pins. */
const installClient = (onStart) =>
  step("install the Python client", python, [...pipInstall, "--no-build-isolation", "--editable", client], onStart);

/** Makes `.venv` what the lock file says. Takes a fraction of a second when it is. */
export async function setUpPython() {
  const { command, identity } = await needPython();
  const facts = [identity, process.platform, process.arch, root];
  await once({
    title: "Installing Python packages into .venv (3.9 GB, nearly all of it torch's; about a minute)",
    lock: "python-packages",
    stamp: ".venv/.tensord-packages",
    result: pythonPath,
    fingerprint: fingerprint([lockFile], facts),
    work: (onStart) => installPackages(command, onStart),
  });
  await once({
    title: "Installing the Python client, editable",
    lock: "python-packages",
    stamp: ".venv/.tensord-client",
    result: pythonPath,
    fingerprint: fingerprint([lockFile, "clients/python/pyproject.toml"], facts),
    work: installClient,
  });
}
