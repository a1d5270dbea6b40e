/** A process that is a worker of an elastic pool: told what to do over its standard input, and killed by a test. */

import { join } from "node:path";
import { python, root } from "./instance-needs.ts";
import type { TestServer } from "./server.ts";
import { within } from "./server-wait.ts";
import { readLines } from "./worker.ts";

const script = join(root, "tests/harness/workers/page_worker.py");

type Answer = { readonly ok: true; readonly value: unknown } | { readonly ok: false; readonly error: string };

/** What the server refused the worker. */
export class Unable extends Error {}

export class PageWorker implements AsyncDisposable {
  readonly #server: TestServer;
  readonly #device: string;
  readonly #process: Bun.Subprocess<"pipe", "pipe", "inherit">;
  readonly #lines: AsyncIterator<string>;

  constructor(server: TestServer, device: string) {
    this.#server = server;
    this.#device = device;
    this.#process = Bun.spawn([python ?? "python3", script], { stdin: "pipe", stdout: "pipe", stderr: "inherit" });
    this.#lines = readLines(this.#process.stdout);
  }

  async #do<Value>(command: Readonly<Record<string, unknown>>): Promise<Value> {
    this.#process.stdin.write(`${JSON.stringify(command)}\n`);
    await this.#process.stdin.flush();
    const { value, done } = await within(`the worker answers ${command.do}`, this.#lines.next());
    if (done === true) throw new Error(`the worker died before it answered ${command.do}`);
    const answer = JSON.parse(value) as Answer;
    if (answer.ok) return answer.value as Value;
    throw new Unable(`the worker could not ${command.do}: ${answer.error}`);
  }

  /** Connects, also anew: with its slot, and what it has. */
  async attach(): Promise<void> {
    const { instance } = this.#server;
    const path = `${instance.shmDirectory}/tensord.${instance.name}/broker.sock`;
    await this.#do({ do: "attach", path, device: this.#device });
  }

  /** Has what the pool has, and nothing else. @returns the pages. */
  converge(): Promise<number[]> {
    return this.#do({ do: "converge", device: this.#device });
  }

  /** Fails unless each page holds what was written to it. */
  async check(): Promise<void> {
    await this.#do({ do: "check" });
  }

  async leave(): Promise<void> {
    await this.#do({ do: "leave" });
  }

  /** SIGKILL; returns when the kernel has taken everything away from it. */
  async kill(): Promise<void> {
    this.#process.kill("SIGKILL");
    await within("the worker is gone", this.#process.exited);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}
