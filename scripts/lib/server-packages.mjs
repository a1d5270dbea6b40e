/**
 * The server's packages, Bun among them: `npm ci` when `node_modules` is not what the lock file says. Does not start
 * anything from them but Bun's own version query.
 */

import { readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { Failure, root, run } from "./process.mjs";
import { fingerprint, once } from "./stamp.mjs";

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

async function install(onStart) {
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
  const { status, output, missing } = await run(command, [...before, "ci", ...flags], { capture: true, onStart });
  if (missing) {
    throw new Failure(
      "Cannot install the server's packages: npm is not on the PATH. Install Node with npm 10 or newer.",
    );
  }
  if (status !== 0) throw installFailure(status, output);
}

function installFailure(status, output) {
  const network = networkErrors.exec(output);
  if (network) {
    return new Failure(
      `Cannot install the server's packages: npm's registry cannot be reached (${network[0]}). Connect this machine to ` +
        "the network, or tell npm of your proxy or mirror (`npm config set proxy …`, `npm config set registry …`), and " +
        "run the command again.",
    );
  }
  const tail = output.trimEnd().split("\n").slice(-30).join("\n");
  return new Failure(`Cannot install the server's packages: npm ci ended with status ${status} and said:\n${tail}`);
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

/** Makes `node_modules` what `package-lock.json` says. Takes a few milliseconds when it is. */
export async function setUpServer() {
  await once({
    title: "Installing server packages (npm ci)",
    lock: "server-packages",
    stamp: "node_modules/.tensord-set-up",
    result: bunPath,
    fingerprint: fingerprint(["package-lock.json", ".npmrc"], [process.version, process.platform, process.arch]),
    work: async (onStart) => {
      await install(onStart);
      await placeBun();
    },
  });
}
