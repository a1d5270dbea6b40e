/** A process that calls the CUDA driver's binding as a test tells it (tests/cuda/driver-process.ts). */

import { join } from "node:path";
import { root } from "./instance-needs.ts";
import { within } from "./server-wait.ts";
import { readLines } from "./worker.ts";

/** What a call failed with, in that process. */
export class CallFailed extends Error {
  readonly facts: Readonly<Record<string, unknown>>;

  constructor(facts: Readonly<Record<string, unknown>>) {
    super(String(facts.message));
    this.facts = facts;
  }
}

type Answer = { readonly value: unknown } | { readonly error: Record<string, unknown> };

export class CudaProcess implements AsyncDisposable {
  readonly #process: Bun.Subprocess<"pipe", "pipe", "inherit">;
  readonly #lines: AsyncIterator<string>;

  /**
   * @param env what it has beside PATH; of a stand-in, or nothing for what the machine has.
   * @param prefix the beginning of its command line.
   */
  constructor(env: Readonly<Record<string, string>>, { cwd = root, prefix = [] as readonly string[] } = {}) {
    this.#process = Bun.spawn(
      [...prefix, process.execPath, "--no-env-file", join(root, "tests/cuda/driver-process.ts")],
      {
        cwd,
        env: { PATH: process.env.PATH, ...env },
        stdio: ["pipe", "pipe", "inherit"],
      },
    );
    this.#lines = readLines(this.#process.stdout);
  }

  get pid(): number {
    return this.#process.pid;
  }

  /** Resolves with the signal that ended it. */
  async ended(): Promise<string | number | null> {
    await within("the process ends", this.#process.exited);
    return this.#process.signalCode;
  }

  /**
   * Calls a method of the driver (`driver.create`), of the context (`context.map`) or a deed of the process.
   * @throws CallFailed
   */
  async call<Value = string>(deed: string, ...args: readonly unknown[]): Promise<Value> {
    this.#process.stdin.write(`${JSON.stringify({ deed, args })}\n`);
    await this.#process.stdin.flush();
    return (await this.#next(deed)) as Value;
  }

  async #next(deed: string): Promise<unknown> {
    const { value, done } = await within(`the process answers ${deed}`, this.#lines.next());
    if (done === true) throw new Error(`the process ended before it answered ${deed}`);
    const answer = JSON.parse(value) as Answer;
    if ("error" in answer) throw new CallFailed(answer.error);
    return answer.value;
  }

  /** Hands a copy of `fd` over to `other`, as SCM_RIGHTS does. @returns its number there. */
  async give(fd: number, other: CudaProcess, path: string): Promise<number> {
    // It says first that it listens.
    await other.call("receiveFd", path);
    await this.call("sendFd", path, fd);
    return (await other.#next("receiveFd")) as number;
  }

  async kill(): Promise<void> {
    this.#process.kill("SIGKILL");
    await this.ended();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}
