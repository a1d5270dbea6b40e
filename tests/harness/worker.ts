/** A real process that maps regions: spawned, told what to do over its standard input, and killed by a test. */

import { join } from "node:path";
import { python, root } from "./instance-needs.ts";
import type { Region } from "./server-api.ts";
import { within } from "./server-wait.ts";

const script = join(root, "tests/harness/workers/region_worker.py");

type Answer = { readonly ok: true; readonly value: unknown } | { readonly ok: false; readonly error: string };

export interface WorkerOptions {
  /** Drops root for this user, with `gid` as its only group. */
  readonly uid?: number;
  readonly gid?: number;
  /** The beginning of its command line, for what else it is to run under. */
  readonly prefix?: readonly string[];
  readonly python?: string;
}

/** One command at a time; each waits for its answer. */
export class WorkerProcess implements AsyncDisposable {
  readonly #process: Bun.Subprocess<"pipe", "pipe", "inherit">;
  readonly #lines: AsyncIterator<string>;

  constructor({ uid, gid, prefix = [], python: interpreter = python ?? "python3" }: WorkerOptions = {}) {
    const user = uid === undefined ? [] : [`--uid=${uid}`, `--gid=${gid ?? uid}`];
    this.#process = Bun.spawn([...prefix, interpreter, script, ...user], {
      stdin: "pipe",
      stdout: "pipe",
      stderr: "inherit",
    });
    this.#lines = readLines(this.#process.stdout);
  }

  get pid(): number {
    return this.#process.pid;
  }

  async #ask(command: Readonly<Record<string, unknown>>): Promise<Answer> {
    this.#process.stdin.write(`${JSON.stringify(command)}\n`);
    await this.#process.stdin.flush();
    const { value, done } = await within(`the worker answers ${command.do}`, this.#lines.next());
    if (done === true) throw new Error(`the worker died before it answered ${command.do}`);
    return JSON.parse(value) as Answer;
  }

  async #do<Value>(command: Readonly<Record<string, unknown>>): Promise<Value> {
    const answer = await this.#ask(command);
    if (answer.ok) return answer.value as Value;
    throw new Error(`the worker could not ${command.do}: ${answer.error}`);
  }

  /** Maps the region, and leases it by that, under `key`. */
  async attach(key: string, region: Region, access: "read" | "write" = "read"): Promise<void> {
    await this.#do({ do: "attach", key, region, write: access === "write" });
  }

  /** As `attach`, of a region without a name: by a path that leads to a descriptor of it. */
  async attachThrough(key: string, path: string, region: Region, access: "read" | "write" = "read"): Promise<void> {
    await this.#do({ do: "attach", key, region, write: access === "write", through: path });
  }

  /** As `attach`; the reason why it could not, or undefined. */
  async tryAttach(region: Region, access: "read" | "write" = "read"): Promise<string | undefined> {
    const answer = await this.#ask({ do: "attach", key: "tried", region, write: access === "write" });
    if (!answer.ok) return answer.error;
    await this.detach("tried");
    return undefined;
  }

  async detach(key: string): Promise<void> {
    await this.#do({ do: "detach", key });
  }

  /** Writes a pattern that follows from `seed` through the mapping. */
  async write(key: string, offset: number, length: number, seed: number): Promise<void> {
    await this.#do({ do: "write", key, offset, length, seed });
  }

  /** Bytes of the mapping, in hexadecimal. */
  read(key: string, offset: number, length: number): Promise<string> {
    return this.#do({ do: "read", key, offset, length });
  }

  /** SHA-256 of the whole mapping. */
  digest(key: string): Promise<string> {
    return this.#do({ do: "digest", key });
  }

  async truncate(path: string, size: number): Promise<void> {
    await this.#do({ do: "truncate", path, size });
  }

  /** "ok", or the errno's name. */
  open(path: string, access: "read" | "write" = "read"): Promise<string> {
    return this.#do({ do: "open", path, write: access === "write" });
  }

  /** "ok", or the errno's name. */
  list(path: string): Promise<string> {
    return this.#do({ do: "list", path });
  }

  /** Swaps two names in one step. */
  async exchange(one: string, other: string): Promise<void> {
    await this.#do({ do: "exchange", one, other });
  }

  /** SIGKILL; returns when the kernel has taken its mappings away. */
  async kill(): Promise<void> {
    this.#process.kill("SIGKILL");
    await within("the worker is gone", this.#process.exited);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}

/** The lines of a stream, without their ends. */
export async function* readLines(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of stream) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}

/** Runs a script of `workers/` to its end. @returns what it printed, as JSON. @throws Error with its standard error. */
export async function runScript<Result>(interpreter: string, name: string, ...args: string[]): Promise<Result> {
  const child = Bun.spawn([interpreter, join(root, "tests/harness/workers", name), ...args], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  try {
    const ended = Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
    const [stdout, stderr, status] = await within(`${name} ends`, ended);
    if (status !== 0) throw new Error(`${name} left with ${status}: ${stderr}`);
    return JSON.parse(stdout) as Result;
  } finally {
    child.kill("SIGKILL");
  }
}
