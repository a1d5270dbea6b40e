/**
 * A process of its own that allocates as fast as it is answered, over several connections at once. It takes a fraction of what the
 * server takes for it, so that the server is what is measured.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { type Answer, HttpConnection, toRequest } from "./http-connection.ts";
import { bun } from "./places.ts";

export interface Load {
  readonly unix: string;
  readonly connections: number;
  /** Of all connections together. */
  readonly count: number;
  /** Of each POST to `/v1/regions`. */
  readonly body: unknown;
}

export interface LoadResult {
  readonly seconds: number;
  /** Processor time of the process that asked. */
  readonly busySeconds: number;
  /** What was answered. */
  readonly ids: readonly string[];
}

export class LoadGenerator implements Disposable {
  readonly #process: ChildProcess = spawn(bun, ["--no-env-file", "--no-orphans", import.meta.path], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  readonly #lines: AsyncIterator<string>;

  constructor() {
    const { stdout } = this.#process;
    if (stdout === null) throw new Error("there is no pipe from the process that asks");
    this.#lines = createInterface({ input: stdout })[Symbol.asyncIterator]();
  }

  get pid(): number {
    return this.#process.pid ?? 0;
  }

  /** @throws Error unless each is answered with 201. */
  async run(load: Load): Promise<LoadResult> {
    this.#process.stdin?.write(`${JSON.stringify(load)}\n`);
    const { value, done } = await this.#lines.next();
    if (done === true) throw new Error("the process that asks has ended");
    return JSON.parse(value) as LoadResult;
  }

  [Symbol.dispose](): void {
    this.#process.stdin?.end();
  }
}

async function generate({ unix, connections, count, body }: Load): Promise<LoadResult> {
  const request = toRequest("POST", "/v1/regions", body);
  const open = await Promise.all(Array.from({ length: connections }, () => HttpConnection.open(unix)));
  const answers: Answer[] = [];
  let left = count;
  const before = process.cpuUsage();
  const begin = performance.now();
  await Promise.all(
    open.map(async (connection) => {
      while (left > 0) {
        left -= 1;
        answers.push(await connection.send(request));
      }
    }),
  );
  const seconds = (performance.now() - begin) / 1000;
  const { user, system } = process.cpuUsage(before);
  for (const connection of open) connection[Symbol.dispose]();
  const failed = answers.find(({ status }) => status !== 201);
  if (failed !== undefined) throw new Error(`answered ${failed.status}: ${failed.body}`);
  const ids = answers.map((answer) => (JSON.parse(answer.body) as { id: string }).id);
  return { seconds, busySeconds: (user + system) / 1e6, ids };
}

if (import.meta.main) {
  for await (const line of createInterface({ input: process.stdin })) {
    process.stdout.write(`${JSON.stringify(await generate(JSON.parse(line) as Load))}\n`);
  }
}
