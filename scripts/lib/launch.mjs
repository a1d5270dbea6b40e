/** Starts the server's program in Bun and becomes invisible: same streams, same signals, same exit status. */

import { spawn } from "node:child_process";
import { join } from "node:path";
import { main, root, signalStatus, throwIfStopped } from "./process.mjs";
import { bun, setUpServer } from "./server-packages.mjs";

/** A signal again within this time is the same one, which npm has forwarded as well. */
const echoMs = 250;

const parentPollMs = 1_000;

// No `.env` and no `bunfig.toml` of the directory that the user happens to be in, and no package fetched by an import.
// Without us nobody would stop the server, so it ends with us, even if we are killed.
const bunFlags = ["--no-env-file", "--no-install", `--config=${join(root, "bunfig.toml")}`, "--no-orphans"];

/**
 * Sets up, then runs `src/main.ts` with `args` to its end.
 *
 * @param {string[]} args
 */
export function launch(args) {
  return main(async () => {
    await setUpServer();
    return await runBun(args);
  });
}

function runBun(args) {
  throwIfStopped();
  // In a session of its own, the server gets each signal once, from us. In ours it would get Ctrl-C from the terminal,
  // from npm and from us, and take the second for the wish to stop at once.
  const child = spawn(bun, [...bunFlags, join(root, "src/main.ts"), ...args], { stdio: "inherit", detached: true });
  const last = new Map();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR2"]) {
    process.removeAllListeners(signal).on(signal, () => {
      const now = performance.now();
      if (now - (last.get(signal) ?? -echoMs) < echoMs) return;
      last.set(signal, now);
      child.kill(signal);
    });
  }
  endWithNpm(() => child.kill("SIGTERM"));
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code, signal) => resolve(signal ? signalStatus(signal) : code));
  });
}

/** Under `npm start` our parent is npm. If it is killed it cannot pass that on, and nobody would stop the server. */
function endWithNpm(stop) {
  if (process.env.npm_lifecycle_event === undefined) return;
  const npm = process.ppid;
  const timer = setInterval(() => {
    if (process.ppid === npm) return;
    clearInterval(timer);
    stop();
  }, parentPollMs);
  timer.unref();
}
