/**
 * Child processes of the scripts: run to the end, and never left behind when the user stops us. Knows nothing of what is
 * run.
 */

import { spawn } from "node:child_process";
import { constants } from "node:os";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

/** The repository's root, without a slash at the end. */
export const root = fileURLToPath(new URL("../../", import.meta.url)).replace(/\/$/, "");

/** How long a child may take to end after a signal before it is killed. */
const graceMs = 5_000;

/** A failure that the user can cure: printed as its sentence, without a stack. */
export class Failure extends Error {
  name = "Failure";
}

/** The user or a supervisor stopped us. */
class Stopped extends Error {
  name = "Stopped";

  constructor(signal) {
    super(`Stopped by ${signal}.`);
    this.signal = signal;
  }
}

/** The exit status by which a shell reports a death by `signal`. */
export const signalStatus = (signal) => 128 + constants.signals[signal];

const children = new Set();
let stopSignal;

/** Signals the whole group that `pid` leads, since npm and pip have children of their own. One that is gone is fine. */
export function killGroup(pid, signal) {
  try {
    process.kill(-pid, signal);
  } catch (error) {
    if (error.code !== "ESRCH") throw error;
  }
}

function stop(signal) {
  stopSignal ??= signal;
  for (const child of children) {
    killGroup(child.pid, signal);
    setTimeout(() => {
      if (children.has(child)) killGroup(child.pid, "SIGKILL");
    }, graceMs).unref();
  }
}

/** Throws if a signal has asked us to end. For loops that wait without a child. */
export function throwIfStopped() {
  if (stopSignal) throw new Stopped(stopSignal);
}

/**
 * Runs a program to its end, in a process group of its own.
 *
 * @param command a path, or a name on the PATH
 * @param {string[]} args
 * @param {{ cwd?: string, env?: NodeJS.ProcessEnv, capture?: boolean, onLine?: (line: string) => void,
 *   onStart?: (pid: number) => void }} options `capture` keeps stdout and stderr together instead of passing them on;
 *   `onLine` gets each line of either as it comes
 * @returns {Promise<{ status: number, output: string, missing: boolean }>} `status` as a shell reports it; `missing` says
 *   that there is no such program
 */
export async function run(command, args, { cwd = root, env = process.env, capture = false, onLine, onStart } = {}) {
  throwIfStopped();
  const isPiped = capture || onLine !== undefined;
  const stdio = isPiped ? ["ignore", "pipe", "pipe"] : ["ignore", "inherit", "inherit"];
  const child = spawn(command, args, { cwd, env, stdio, detached: true });
  if (child.pid !== undefined) onStart?.(child.pid);
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    if (stream === null) continue;
    if (onLine !== undefined) createInterface({ input: stream }).on("line", onLine);
    if (!capture) continue;
    stream.setEncoding("utf8").on("data", (text) => {
      output += text;
    });
  }
  const result = await finished(child);
  throwIfStopped();
  return { output, ...result };
}

function finished(child) {
  return new Promise((resolve, reject) => {
    children.add(child);
    const settle = (done, value) => {
      children.delete(child);
      done(value);
    };
    child.once("error", (error) => {
      if (error.code === "ENOENT") settle(resolve, { status: 127, missing: true });
      else settle(reject, error);
    });
    child.once("close", (code, signal) => {
      settle(resolve, { status: signal ? signalStatus(signal) : code, missing: false });
    });
  });
}

/**
 * Runs a script's body and ends the process with the status it returns. Signals end the children first, so that no lock
 * and no half-done work is left to a process that nobody waits for.
 *
 * @param {() => Promise<number | undefined>} body
 */
export async function main(body) {
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, stop);
  try {
    process.exitCode = (await body()) ?? 0;
  } catch (error) {
    if (!(error instanceof Failure || error instanceof Stopped)) throw error;
    console.error(`tensord: ${error.message}`);
    process.exitCode = error instanceof Stopped ? signalStatus(error.signal) : 1;
  }
}

/** Seconds since `startMs` of `performance.now()`, for people. */
export const secondsSince = (startMs) => `${((performance.now() - startMs) / 1000).toFixed(1)} s`;
