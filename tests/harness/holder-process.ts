/** The two processes of `fd-holder.test.ts` and what is known of them: a server that keeps descriptors, and its fd holder. */

import { readdirSync, readFileSync, rmSync } from "node:fs";
import { createInstance, type Instance } from "./instance.ts";
import { killIfThere } from "./instance-doomed.ts";
import { root } from "./instance-needs.ts";
import { readText } from "./server-command.ts";
import { until, within } from "./server-wait.ts";

export interface HolderStatus {
  readonly v: number;
  readonly pid: number;
  readonly descriptors: number;
  readonly age_ms: number;
}

export interface KeepingOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** Bun's flags. */
  readonly flags?: readonly string[];
  /** The beginning of its command line. */
  readonly prefix?: readonly string[];
}

/** A `holder-server.ts` that runs. */
export class KeepingServer {
  readonly #process: Bun.Subprocess<"pipe", "pipe", "inherit">;
  readonly #lines: Record<string, unknown>[] = [];

  constructor(instance: Instance, { env = {}, flags = [], prefix = [] }: KeepingOptions = {}) {
    this.#process = Bun.spawn([...prefix, process.execPath, ...flags, "tests/harness/holder-server.ts"], {
      cwd: root,
      env: { PATH: process.env.PATH, TEST_INSTANCE: instance.name, TEST_SHM_DIRECTORY: instance.shmDirectory, ...env },
      stdio: ["pipe", "pipe", "inherit"],
      // A process group of its own, to be signalled as a terminal does.
      detached: true,
    });
    let text = "";
    void readText(this.#process.stdout, (part) => {
      const lines = (text + part).split("\n");
      text = lines.pop() ?? "";
      this.#lines.push(...lines.map((line) => JSON.parse(line)));
    });
  }

  get pid(): number {
    return this.#process.pid;
  }

  get warnings(): readonly unknown[] {
    return this.#lines.flatMap(({ warning }) => warning ?? []);
  }

  /** Resolves when it has the instance's lock. */
  async ready(): Promise<this> {
    await until("it has the lock", () => this.#take("ready"));
    return this;
  }

  tell(deed: string, token = ""): void {
    this.#process.stdin.write(`${JSON.stringify([deed, token])}\n`);
    this.#process.stdin.flush();
  }

  /** @throws Error what it failed with. */
  async ask<Answer>(deed: string, token = ""): Promise<Answer> {
    this.tell(deed, token);
    const said = await until(`${deed} is answered`, () => this.#take("answer", "failure"));
    if ("failure" in said) throw new Error(String(said.failure));
    return said.answer as Answer;
  }

  /** Waits for its end. @returns its exit status, or the signal that ended it. */
  async exited(): Promise<number | NodeJS.Signals> {
    await within("it ends", this.#process.exited);
    return this.#process.signalCode ?? this.#process.exitCode ?? 0;
  }

  async kill(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    this.#process.kill(signal);
    await this.exited();
  }

  /** A stop in order. */
  async stop(): Promise<void> {
    this.#process.stdin.end();
    if ((await this.exited()) !== 0) throw new Error("it did not leave in order");
  }

  #take(...kinds: string[]): Record<string, unknown> | undefined {
    const at = this.#lines.findIndex((line) => kinds.some((kind) => kind in line));
    return at < 0 ? undefined : this.#lines.splice(at, 1)[0];
  }
}

/** An instance's place, whose servers and fd holders are gone at its end, and its directory with them. */
export class HolderPlayground implements AsyncDisposable {
  readonly instance = createInstance();
  readonly #servers: KeepingServer[] = [];

  /** A server that may not get the lock. */
  spawn(options?: KeepingOptions): KeepingServer {
    const server = new KeepingServer(this.instance, options);
    this.#servers.push(server);
    return server;
  }

  async start(options?: KeepingOptions): Promise<KeepingServer> {
    return await this.spawn(options).ready();
  }

  /** The fd holders of this instance that run. */
  holders(): number[] {
    return readdirSync("/proc").flatMap((pid) => (isHolderOf(this.instance, pid) ? Number(pid) : []));
  }

  /** The one fd holder that runs. */
  holder(): number {
    const [pid, ...others] = this.holders();
    if (pid === undefined || others.length > 0) throw new Error(`want one fd holder, there are: ${this.holders()}`);
    return pid;
  }

  async noHolder(): Promise<void> {
    await until("the fd holder has ended", () => this.holders().length === 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.#servers) await server.kill();
    for (const pid of this.holders()) killIfThere(pid);
    rmSync(this.instance.directory, { recursive: true, force: true });
  }
}

/** A zombie has no command line any more. */
function isHolderOf({ name }: Instance, pid: string): boolean {
  if (!/^\d+$/.test(pid)) return false;
  try {
    const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
    return words[words.indexOf("fd-holder") + 2] === name && words.includes("fd-holder");
  } catch {
    return false;
  }
}
