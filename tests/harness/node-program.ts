/**
 * Programs of the Node client's users, each a real process of Node or Bun: a module's text in, JSON lines out. Python
 * programs of the other client beside them.
 */

import { join } from "node:path";
import { root, stockPython } from "./instance-needs.ts";
import { within } from "./server-wait.ts";

/** Here the package's own name leads to what was built of it. */
const clientDirectory = join(root, "clients/node");

export const node = process.env.npm_node_execpath ?? Bun.which("node") ?? "node";

/** What the client runs on. */
export const runtimes = {
  node: [node, "--expose-gc", "--input-type=module", "--eval"],
  bun: [process.execPath, "--no-install", "--eval"],
} as const;

export type Runtime = keyof typeof runtimes;

/**
 * For tests of what the client asks and what it makes of the answers, which is the same code on both: Bun's turn comes with
 * `npm test -- --long`. Those of memory, locks, sockets, threads, streams and ends run on both.
 */
export const usualRuntimes: readonly Runtime[] = process.env.TEST_LONG === undefined ? ["node"] : ["node", "bun"];

const builder = `await (await import("./scripts/lib/node-client.mjs")).setUpNodeClient()`;
const built = Bun.spawnSync([node, "--input-type=module", "--eval", builder], { cwd: root, stderr: "pipe" });
/** Built when this file is loaded: a few milliseconds if nothing changed. */
export const needsNodeClient = built.success ? undefined : `needs clients/node built: ${built.stderr}`;

/** What programs find without importing it. */
export const prelude = `
  import { createInterface } from "node:readline";
  import { connect, isTensordError, TensordError, TensorReference } from "@tensord/client";
  const input = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  // For connect, where the server is away for a while: a start takes long on a busy machine.
  const patient = { retryMs: 180_000 };
  const receive = async () => JSON.parse((await input.next()).value);
  const tell = (value) => process.stdout.write(JSON.stringify(value) + "\\n");
  const codeOf = async (action) => {
    try {
      await action();
    } catch (error) {
      return error.code ?? String(error);
    }
    return "no error";
  };
  const collect = async () => {
    globalThis.Bun ? Bun.gc(true) : globalThis.gc();
    await new Promise((resolve) => setImmediate(resolve));
  };
`;

type Environment = Readonly<Record<string, string>>;

/** One running program. It tells and is told values; its standard error is kept for whoever waits in vain. */
export class NodeProgram implements AsyncDisposable {
  readonly #process: Bun.Subprocess<"pipe", "pipe", "pipe">;
  readonly #stderr: Promise<string>;
  readonly #lines: AsyncIterator<string>;

  constructor(command: readonly string[], env: Environment) {
    this.#process = Bun.spawn([...command], {
      cwd: clientDirectory,
      env: { PATH: process.env.PATH ?? "", ...env },
      stdin: "pipe",
      stdout: "pipe",
      stderr: "pipe",
    });
    this.#stderr = this.#process.stderr.text();
    this.#lines = readLines(this.#process.stdout);
  }

  get pid(): number {
    return this.#process.pid;
  }

  /** The next value that the program tells. @throws Error with its standard error if it ends instead */
  async hear<Value = unknown>(): Promise<Value> {
    const { value, done } = await within("the program tells something", this.#lines.next());
    if (done !== true) return JSON.parse(value) as Value;
    throw new Error(`the program ended with ${await this.#process.exited}:\n${await this.#stderr}`);
  }

  /** Tells the program a value: its `receive()`. */
  async say(value: unknown): Promise<void> {
    this.#process.stdin.write(`${JSON.stringify(value)}\n`);
    await this.#process.stdin.flush();
  }

  /** Waits until it ends by itself. @throws Error with its standard error if it fails */
  async end(): Promise<void> {
    this.#process.stdin.end();
    const status = await within("the program ends", this.#process.exited);
    if (status !== 0) throw new Error(`the program left with ${status}:\n${await this.#stderr}`);
  }

  /** SIGKILL; returns when the kernel has taken its mappings away. */
  async kill(): Promise<void> {
    this.#process.kill("SIGKILL");
    await within("the program is gone", this.#process.exited);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}

/** Starts a module, which finds the prelude's names. */
export function startProgram(runtime: Runtime, env: Environment, source: string): NodeProgram {
  return new NodeProgram([...runtimes[runtime], prelude + source], env);
}

/** Starts a program of the Python client: `tell(value)` and `receive()` as in the others. */
export function startPython(env: Environment, source: string): NodeProgram {
  const head = "import json, sys, numpy as np, tensord\n";
  const tell = "def tell(value):\n    print(json.dumps(value), flush=True)\n";
  const receive = "def receive():\n    return json.loads(sys.stdin.readline())\n";
  const lines = source.replace(/^\n/, "").split("\n");
  const indent = /^ */.exec(lines[0] ?? "")?.[0].length ?? 0;
  return new NodeProgram(
    [stockPython, "-c", head + tell + receive + lines.map((line) => line.slice(indent)).join("\n")],
    env,
  );
}

/** Runs a program to its end. @returns the one value that it tells */
export async function runProgram<Value = unknown>(runtime: Runtime, env: Environment, source: string): Promise<Value> {
  return outcomeOf(startProgram(runtime, env, source));
}

/** Runs a program of the Python client to its end. @returns the one value that it tells */
export async function runPython<Value = unknown>(env: Environment, source: string): Promise<Value> {
  return outcomeOf(startPython(env, source));
}

async function outcomeOf<Value>(started: NodeProgram): Promise<Value> {
  await using program = started;
  const value = await program.hear<Value>();
  await program.end();
  return value;
}

/** The lines of a stream, without their ends. */
async function* readLines(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of stream) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}
