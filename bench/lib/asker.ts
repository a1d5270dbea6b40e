/** A process that asks a server small questions at a steady rate, and what each answer took, by label. */

import { type ChildProcess, spawn } from "node:child_process";
import { python } from "./places.ts";

export class Asker {
  readonly #process: ChildProcess;
  readonly #ended: Promise<string>;

  constructor(target: string, requestsPerSecond: number, paths: readonly string[]) {
    const script = `${import.meta.dirname}/steady_requests.py`;
    this.#process = spawn(python, [script, target, String(requestsPerSecond), ...paths], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    let output = "";
    this.#process.stdout?.setEncoding("utf8").on("data", (text: string) => {
      output += text;
    });
    this.#process.once("error", reject);
    this.#process.once("close", (code) =>
      code === 0 ? resolve(output) : reject(new Error(`the asker ended with ${code}`)),
    );
    this.#ended = promise;
  }

  get pid(): number {
    return this.#process.pid ?? 0;
  }

  /** Runs `work` while requests are kept under `label`. @returns its seconds. */
  async during(label: string, work: () => Promise<unknown>): Promise<number> {
    this.#process.stdin?.write(`${label}\n`);
    const begin = performance.now();
    await work();
    const seconds = (performance.now() - begin) / 1000;
    this.#process.stdin?.write("\n");
    return seconds;
  }

  /** @returns the latencies in µs by label. */
  async end(): Promise<Record<string, number[]>> {
    this.#process.stdin?.end();
    return JSON.parse(await this.#ended) as Record<string, number[]>;
  }
}
