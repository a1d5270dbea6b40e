/**
 * Ends a run of tests from which nothing is heard any more. A runner kills a test that waits for too long by itself, but
 * not one that never comes back from a loop or a call; where the runner has processes for the tests, it names what one of
 * them ran when it was killed, and goes on with the others.
 */

import { readFileSync } from "node:fs";
import { killGroup } from "./process.mjs";

const lookMs = 1000;
/** What is left to a runner to tell which test was killed, before all of it is. */
const lastWordsMs = 60_000;
/** The processes in which Bun and pytest-xdist run tests. */
const isWorker = (pid) => /--test-worker|execnet/.test(read(`/proc/${pid}/cmdline`));

function read(path) {
  try {
    return readFileSync(path, "utf8");
  } catch {
    // The process has ended.
    return "";
  }
}

/** proc_pid_task(5): a child is listed by the thread that made it. */
function workersOf(pid) {
  const children = read(`/proc/${pid}/task/${pid}/children`).split(" ").filter(Boolean);
  return children.map(Number).filter(isWorker);
}

export class SilenceWatch {
  #heardAt = performance.now();
  #limitMs;
  #timer;
  #pid;
  /** Whether something was killed. */
  hasKilled = false;

  /**
   * @param {number} limitMs after which silence is no patience any more
   * @param {(text: string) => void} tell
   */
  constructor(limitMs, tell) {
    this.#limitMs = limitMs;
    this.#timer = setInterval(() => this.#look(tell), lookMs);
  }

  /** The process that leads the group that is watched. */
  watch(pid) {
    this.#pid = pid;
  }

  heard() {
    this.#heardAt = performance.now();
  }

  end() {
    clearInterval(this.#timer);
  }

  #look(tell) {
    const silentMs = performance.now() - this.#heardAt;
    if (this.#pid === undefined || silentMs < this.#limitMs) return;
    const workers = this.hasKilled ? [] : workersOf(this.#pid);
    tell(
      `nothing was heard for ${Math.round(silentMs / 1000)} s: killing ${workers.length > 0 ? "its processes" : "it"}`,
    );
    if (workers.length === 0) killGroup(this.#pid, "SIGKILL");
    for (const worker of workers) kill(worker);
    this.hasKilled = true;
    this.#limitMs = lastWordsMs;
    this.heard();
  }
}

function kill(pid) {
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    if (error.code !== "ESRCH") throw error;
  }
}
