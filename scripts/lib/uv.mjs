/**
 * `uv`, which installs Python packages: the version that `uv.txt` pins, in an environment of its own below `.tmp`.
 * Whatever uv is on the PATH is not used. Knows nothing of what is installed.
 */

import { rmSync } from "node:fs";
import { join } from "node:path";
import { Failure, root, run } from "./process.mjs";
import { fingerprint, once } from "./stamp.mjs";

const uvPath = ".tmp/uv/bin/uv";
const requirements = "scripts/lib/uv.txt";

const directory = join(root, ".tmp/uv");
const interpreter = join(directory, "bin/python");

/** pip's settings that say how a package index is reached, and the names under which uv takes them. */
const namesInUv = {
  "index-url": "UV_DEFAULT_INDEX",
  "extra-index-url": "UV_INDEX",
  "trusted-host": "UV_INSECURE_HOST",
  proxy: "ALL_PROXY",
  cert: "SSL_CERT_FILE",
};
/** Where pip finds them: each overrules the ones before it. */
const scopes = ["global", "install", ":env:"];

const networkErrors =
  /(NewConnectionError|NameResolutionError|ConnectTimeoutError|ReadTimeoutError|ProxyError|Temporary failure in name resolution|Network is unreachable|error sending request)/;

async function step(what, command, args, { env, onStart }) {
  const { status, output } = await run(command, args, { capture: true, env, onStart });
  if (status === 0) return;
  if (networkErrors.test(output)) {
    throw new Failure(
      `Cannot ${what}: the Python package index cannot be reached. Connect this machine to the network, or tell pip of ` +
        "your proxy or mirror (PIP_PROXY, PIP_INDEX_URL), and run the command again.",
    );
  }
  const cache = /Failed to initialize cache at `(.*)`/.exec(output)?.[1];
  if (cache !== undefined) {
    throw new Failure(`Cannot ${what}: uv cannot write its cache ${cache}. Set UV_CACHE_DIR to a folder of yours.`);
  }
  const tail = output.trimEnd().split("\n").slice(-30).join("\n");
  throw new Failure(`Cannot ${what}: the command ended with status ${status} and said:\n${tail}`);
}

async function installUv(command, { env, onStart }) {
  rmSync(directory, { recursive: true, force: true });
  await step("make an environment for uv", command, ["-m", "venv", directory], { env, onStart });
  const index = env.PIP_INDEX_URL ?? env.UV_DEFAULT_INDEX ?? env.UV_INDEX_URL;
  await step(
    "install uv, which installs the Python packages",
    interpreter,
    ["-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--require-hashes", "-r", requirements],
    { env: { ...env, ...(index !== undefined && { PIP_INDEX_URL: index }) }, onStart },
  );
}

/**
 * Makes `.tmp/uv` what `uv.txt` says.
 *
 * @param {{ command: string, facts: string[], env: NodeJS.ProcessEnv }} python a Python that can make environments, and
 *   what must not change if they are to last
 */
export async function setUpUv({ command, facts, env }) {
  await once({
    title: "Installing uv",
    lock: "python-packages",
    stamp: ".tmp/uv/.tensord-set-up",
    result: uvPath,
    fingerprint: fingerprint([requirements], facts),
    work: (onStart) => installUv(command, { env, onStart }),
  });
}

/** Whoever told pip of a mirror need not tell uv too. What uv was told itself goes first. */
async function settingsOfPip(env) {
  const { output } = await run(interpreter, ["-m", "pip", "config", "list"], { capture: true, env });
  const settings = [...output.matchAll(/^(.+?)\.([a-z-]+)='(.*)'$/gm)]
    .filter(([, scope, name]) => scopes.includes(scope) && Object.hasOwn(namesInUv, name))
    .toSorted(([, one], [, other]) => scopes.indexOf(one) - scopes.indexOf(other))
    .map(([, , name, value]) => [namesInUv[name], value.replaceAll("\\n", " ").trim()]);
  const { UV_DEFAULT_INDEX: index, ...others } = Object.fromEntries(settings);
  return index === undefined || env.UV_INDEX_URL !== undefined ? others : { ...others, UV_DEFAULT_INDEX: index };
}

/**
 * Runs uv, which must be set up.
 *
 * @param {string} what it does, for the failure's sentence
 * @param {string[]} args
 * @param {{ env: NodeJS.ProcessEnv, onStart: (pid: number) => void }} options
 */
export async function runUv(what, args, { env, onStart }) {
  const settings = await settingsOfPip(env);
  await step(what, join(root, uvPath), args, { env: { ...settings, ...env }, onStart });
}
