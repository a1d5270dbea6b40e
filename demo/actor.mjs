/** A process that plays: it is asked in words, one a line, and answers in JSON, one object a line. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { Failure, throwIfStopped } from "../scripts/lib/process.mjs";

/** One that should have ended and did not is killed after this, so that the story goes on and shows it. */
const patienceMs = 180_000;

export class Actor {
  #process;
  #lines = [];
  #waiting;
  #ended;
  #errors = "";

  /** @param script the file in `demo/` that `command` runs, with `args` after it */
  constructor(command, script, args, options) {
    this.script = script;
    // A group of its own: Ctrl-C in the terminal is for the story, which then ends its cast in order.
    this.#process = spawn(command, [script, ...args], { ...options, stdio: ["pipe", "pipe", "pipe"], detached: true });
    createInterface(this.#process.stdout).on("line", (text) => {
      this.#lines.push(JSON.parse(text));
      this.#waiting?.();
    });
    this.#process.stderr.setEncoding("utf8").on("data", (text) => {
      this.#errors += text;
    });
    this.#process.stdin.on("error", () => {});
    this.#ended = once(this.#process, "close").then(([code, signal]) => {
      this.outcome = signal ?? code;
      this.#waiting?.();
    });
  }

  get pid() {
    return this.#process.pid;
  }

  /** What it says next. */
  async hear() {
    while (this.#lines.length === 0) {
      throwIfStopped();
      if (this.outcome !== undefined)
        throw new Failure(`${this.script} ended (${this.outcome}):\n${this.#errors.trim()}`);
      await new Promise((resolve) => {
        this.#waiting = resolve;
      });
    }
    return this.#lines.shift();
  }

  /** Says a line, and returns the answer. */
  async ask(line) {
    this.#process.stdin.write(`${line}\n`);
    return await this.hear();
  }

  /** Has nothing more to say to it, and waits for its end. @returns its exit status, or the signal that ended it */
  async end() {
    // Node does not end while its standard input may still bring something.
    this.#process.stdin.end();
    const timer = setTimeout(() => this.#process.kill("SIGKILL"), patienceMs);
    await this.#ended;
    clearTimeout(timer);
    return this.outcome;
  }

  async kill() {
    if (this.outcome === undefined) this.#process.kill("SIGKILL");
    return await this.end();
  }
}
