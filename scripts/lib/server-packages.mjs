/**
 * The packages, Bun among them: `npm ci` when `node_modules` is not what the lock file says. The server has its own, a third of all,
 * for who only starts it. Does not start anything from them but Bun's own version query.
 */

import { existsSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { Failure, root, run } from "./process.mjs";
import { fingerprint, isDone, markDone, once } from "./stamp.mjs";

const bunPath = "node_modules/.bin/bun";

/** The Bun that the lock file pins. Whatever Bun is on the PATH is not used. */
export const bun = join(root, bunPath);

const networkErrors =
  /\b(EAI_AGAIN|ENOTFOUND|ECONNREFUSED|ECONNRESET|ENETUNREACH|EHOSTUNREACH|ETIMEDOUT|ERR_SOCKET_TIMEOUT)\b/;

/** npm as it was started, so that `npm start` uses one npm throughout; else the one on the PATH. */
export function npmCommand() {
  const cli = process.env.npm_execpath;
  return cli && basename(cli) === "npm-cli.js" ? [process.execPath, cli] : ["npm"];
}

/** @param {string[]} how npm's command, and what it leaves out */
async function install(how, onStart) {
  const [command, ...before] = npmCommand();
  // Packages that npm has in its cache are not asked for again; short pauses between tries, so that a machine without a
  // network is told so in seconds and not after a minute.
  const flags = [
    "--prefer-offline",
    "--no-audit",
    "--no-fund",
    "--fetch-retry-mintimeout=1000",
    "--fetch-retry-maxtimeout=5000",
  ];
  const { status, output, missing } = await run(command, [...before, ...how, ...flags], { capture: true, onStart });
  if (missing) {
    throw new Failure("Cannot install the packages: npm is not on the PATH. Install Node with npm 10 or newer.");
  }
  if (status !== 0) throw installFailure(how[0], status, output);
}

function installFailure(verb, status, output) {
  const network = networkErrors.exec(output);
  if (network) {
    return new Failure(
      `Cannot install the packages: npm's registry cannot be reached (${network[0]}). Connect this machine to ` +
        "the network, or tell npm of your proxy or mirror (`npm config set proxy …`, `npm config set registry …`), and " +
        "run the command again.",
    );
  }
  const tail = output.trimEnd().split("\n").slice(-30).join("\n");
  return new Failure(`Cannot install the packages: npm ${verb} ended with status ${status} and said:\n${tail}`);
}

async function hasBun() {
  const { version } = JSON.parse(readFileSync(join(root, "node_modules/bun/package.json"), "utf8"));
  const { status, output } = await run(bun, ["--version"], { capture: true });
  return status === 0 && output.trim() === version;
}

/** Bun's package moves its executable into place in an install script, which npm can be told not to run. */
async function placeBun() {
  if (await hasBun()) return;
  const { output } = await run(process.execPath, ["install.js"], {
    cwd: join(root, "node_modules/bun"),
    capture: true,
  });
  if (await hasBun()) return;
  throw new Failure(
    `Cannot set up Bun: its package has no executable for ${process.platform} ${process.arch} that runs here. ` +
      `Its installer said:\n${output.trimEnd()}`,
  );
}

const common = () => ({
  lock: "server-packages",
  result: bunPath,
  fingerprint: fingerprint(["package-lock.json", ".npmrc"], [process.version, process.platform, process.arch]),
});

const serverStep = () => ({
  title: "Installing the server's packages (npm ci)",
  stamp: "node_modules/.tensord-server-set-up",
  ...common(),
});

const wholeStep = () => ({
  title: "Installing all packages (npm)",
  stamp: "node_modules/.tensord-set-up",
  ...common(),
});

const readPackages = (path) => JSON.parse(readFileSync(join(root, path), "utf8")).packages;

/** npm writes down what it has put in its place, whoever called it and with which flags. */
function hasServerPackages() {
  if (!existsSync(join(root, "node_modules/.package-lock.json"))) return false;
  const installed = readPackages("node_modules/.package-lock.json");
  const locked = readPackages("package-lock.json");
  const paths = Object.keys(locked[""].dependencies).map((name) => `node_modules/${name}`);
  return paths.every((path) => installed[path]?.version === locked[path].version);
}

/** Makes `node_modules` hold what the server needs, by `package-lock.json`. Takes a few milliseconds when it does. */
export async function setUpServer() {
  const step = serverStep();
  if (isDone(step)) return;
  // Whoever once had all of it works on it, and is not to lose it.
  if (existsSync(join(root, wholeStep().stamp))) return await setUpPackages();
  await once({
    ...step,
    work: async (onStart) => {
      if (!hasServerPackages()) await install(["ci", "--omit=dev", "--workspaces=false"], onStart);
      await placeBun();
    },
  });
}

/** Makes `node_modules` all that `package-lock.json` says, for tests and tools. Takes a few milliseconds when it is. */
export async function setUpPackages() {
  const step = wholeStep();
  await once({
    ...step,
    work: async (onStart) => {
      // Where a server may run already, the rest is put beside what it has; `npm ci` would take that away first.
      await install(isDone(serverStep()) ? ["install", "--no-save"] : ["ci"], onStart);
      await placeBun();
      markDone(serverStep());
    },
  });
}
