/** Drives `tests/faults/workers/doomed.py`: workers that do one thing each until a test kills them. */

import { join } from "node:path";
import { python, root } from "./instance-needs.ts";
import { until } from "./server-wait.ts";

const script = join(root, "tests/faults/workers/doomed.py");

export interface Report {
  readonly id: number;
  readonly pid: number;
  /** What it has reached; `failed` with an `error` if it met one. */
  readonly at: string;
  readonly [fact: string]: unknown;
}

export interface Doomed {
  readonly id: number;
  readonly role: string;
  readonly seed: number;
  readonly [argument: string]: unknown;
}

export class DoomedWorkers implements AsyncDisposable {
  readonly reports: Report[] = [];
  readonly #parent: Bun.Subprocess<"pipe", "pipe", "inherit">;
  readonly #reading: Promise<void>;
  /** Workers that were killed: what the last of them reported does not count as their failure. */
  readonly #killed = new Set<number>();

  constructor(socket: string) {
    const options = { stdin: "pipe", stdout: "pipe", stderr: "inherit" } as const;
    this.#parent = Bun.spawn([python ?? "python3", script, socket], options);
    this.#reading = this.#read(this.#parent.stdout);
  }

  async #read(stream: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    let rest = "";
    for await (const chunk of stream) {
      const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) this.reports.push(JSON.parse(line) as Report);
    }
  }

  start(worker: Doomed): void {
    this.#parent.stdin.write(`${JSON.stringify(worker)}\n`);
    this.#parent.stdin.flush();
  }

  /** The first report of worker `id` that it has reached `at`. @throws Error with its failure. */
  async untilAt(id: number, at: string, deadlineMs?: number): Promise<Report> {
    const find = () => {
      this.assertNoFailure();
      return this.reports.find((report) => report.id === id && report.at === at);
    };
    return await until(`worker ${id} is ${at}`, find, deadlineMs);
  }

  assertNoFailure(): void {
    const failed = this.reports.find((report) => report.at === "failed" && !this.#killed.has(report.pid));
    if (failed !== undefined) throw new Error(`worker ${failed.id} (${failed.role}) failed: ${failed.error}`);
  }

  /** Sends SIGKILL. Workers tell their pid with their first report. */
  kill(pid: number): void {
    this.#killed.add(pid);
    process.kill(pid, "SIGKILL");
  }

  /** Takes the reports of worker `id` out, for a driver that runs for long. */
  forget(id: number): Report[] {
    const own = this.reports.filter((report) => report.id === id);
    const others = this.reports.filter((report) => report.id !== id);
    this.reports.splice(0, this.reports.length, ...others);
    return own;
  }

  get killed(): number {
    return this.#killed.size;
  }

  isKilled(pid: number): boolean {
    return this.#killed.has(pid);
  }

  /** Kills whoever is left, and the parent. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#parent.kill("SIGKILL");
    await this.#parent.exited;
    // Each holds the common standard output, which ends when the last of them is gone.
    const ended = this.#reading.then(() => true);
    await until("all workers are gone", () => {
      for (const { pid } of this.reports) killIfThere(pid);
      return Promise.race([ended, Bun.sleep(5).then(() => false)]);
    });
  }
}

/** SIGKILL to a process that may have ended by itself. */
export function killIfThere(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}
