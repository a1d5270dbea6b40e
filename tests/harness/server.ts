/**
 * A real server process on an instance of its own: started, killed and restarted by a test, and at the end stopped,
 * purged and searched for what it left behind.
 */

import { renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Step } from "../../src/memory/state/steps.ts";
import { purge } from "../../src/server/cli/purge.ts";
import { createInstance, type Instance, listNames } from "./instance.ts";
import { root } from "./instance-needs.ts";
import { NoAnswer, ServerApi } from "./server-api.ts";
import { type CommandResult, type RunningCommand, startTensord } from "./server-command.ts";
import { ServerLog } from "./server-log.ts";
import { runtimeSettings, steppedServer, tensord } from "./server-program.ts";
import { until, within } from "./server-wait.ts";

export interface ServerOptions {
  /** Further `TENSORD_*` settings. TCP is off unless TENSORD_PORT is among them. */
  readonly env?: Readonly<Record<string, string>>;
  readonly shmDirectory?: string;
  /** Runs the server, and purges, as this user and group. Needs root. */
  readonly uid?: number;
  /** The beginning of the server's command line, for what else it is to run under. */
  readonly prefix?: readonly string[];
  /** Runs the server of the fault tests, which may be told where to die (`killAfter`) and takes further settings. */
  readonly isStepped?: boolean;
  /** With a stand-in driver: does not wait until that has told of its devices, as the server does not. */
  readonly isWithoutDevices?: boolean;
}

/** Where a server kills itself: after the step, the `count`th time it gets there. */
export interface KillPoint {
  readonly step: Step;
  readonly count?: number;
  /** Another process that it kills instead. */
  readonly pid?: number;
}

export class TestServer implements AsyncDisposable {
  readonly instance: Instance;
  readonly api: ServerApi;
  readonly log = new ServerLog();
  readonly #options: ServerOptions;
  /** Where a stepped server looks for the step at which it dies. */
  readonly #killFile: string;
  #process: Bun.Subprocess<"ignore", "pipe", "pipe"> | undefined;
  #reading: Promise<void> = Promise.resolve();

  /** Nothing runs before `start`. */
  constructor(options: ServerOptions = {}) {
    this.#options = options;
    this.instance = createInstance(options.shmDirectory);
    this.#killFile = join(tmpdir(), `tensord-test-${this.instance.name}.kill`);
    this.api = new ServerApi(options.env?.TENSORD_SOCKET ?? this.instance.socket);
  }

  get env(): Record<string, string> {
    return {
      PATH: process.env.PATH ?? "",
      TENSORD_PORT: "",
      TENSORD_INSTANCE: this.instance.name,
      TENSORD_SHM_DIR: this.instance.shmDirectory,
      // Bytes are counted, and many servers run at once: what lies ready is for the tests that ask for it.
      TENSORD_RESERVE_BYTES: "0",
      ...this.#options.env,
    };
  }

  get pid(): number {
    if (this.#process === undefined) throw new Error("no server runs");
    return this.#process.pid;
  }

  get isRunning(): boolean {
    return this.#process !== undefined;
  }

  /** Spawns the process. `start` also waits until it is ready. */
  spawn(killPoint?: KillPoint): void {
    if (this.#process !== undefined) throw new Error("a server runs already");
    const isStepped = killPoint !== undefined || this.#options.isStepped === true;
    this.killAfter(killPoint);
    this.#process = Bun.spawn(
      [
        ...(this.#options.prefix ?? withOpenFiles(process.env.TEST_OPEN_FILES)),
        ...asUser(this.#options.uid),
        ...(isStepped ? steppedServer : [...tensord, "serve"]),
      ],
      {
        cwd: root,
        env: { ...runtimeSettings, ...this.env, ...(isStepped && { TEST_KILL_FILE: this.#killFile }) },
        stdin: "ignore",
        stdout: "pipe",
        stderr: "pipe",
      },
    );
    this.#reading = this.log.read(this.#process.stdout, this.#process.stderr);
  }

  /** Where the running server, if it is a stepped one, dies from now on; undefined: nowhere. */
  killAfter(killPoint: KillPoint | undefined): void {
    if (killPoint === undefined) rmSync(this.#killFile, { force: true });
    else {
      // It reads the file at each step, and must not meet half of one.
      writeFileSync(`${this.#killFile}.new`, JSON.stringify(killPoint));
      renameSync(`${this.#killFile}.new`, this.#killFile);
    }
  }

  /** Starts the server and waits until it is ready. @throws Error with its log if it exits instead. */
  async start(killPoint?: KillPoint): Promise<this> {
    this.spawn(killPoint);
    await until("the server is ready", () => this.#isReady());
    const hasDriver = this.#options.env?.STAND_IN_CUDA_DIR !== undefined && !this.#options.isWithoutDevices;
    if (hasDriver) await until("the driver has told of its devices", () => this.#hasDevices());
    return this;
  }

  async #hasDevices(): Promise<boolean> {
    try {
      const { reason } = await this.api.call<{ reason: string | null }>("GET", "/v1/devices");
      return reason !== "driver-asked" && reason !== "driver-silent";
    } catch (error) {
      if (error instanceof NoAnswer) return false;
      throw error;
    }
  }

  async #isReady(): Promise<boolean> {
    if (this.#process?.exitCode !== null || this.#process.signalCode !== null) {
      await this.#reading;
      throw new Error(`the server did not start:\n${this.log}`);
    }
    try {
      return (await this.api.request("GET", "/readyz")).status === 200;
    } catch (error) {
      if (error instanceof NoAnswer) return false;
      throw error;
    }
  }

  signal(signal: NodeJS.Signals): void {
    process.kill(this.pid, signal);
  }

  /** Waits for the process's end. @returns its exit status, or the signal that ended it. */
  async exited(deadlineMs?: number): Promise<number | NodeJS.Signals> {
    const child = this.#process;
    if (child === undefined) throw new Error("no server runs");
    await within("the server exits", child.exited, deadlineMs);
    await this.#reading;
    this.#process = undefined;
    return child.signalCode ?? child.exitCode ?? 0;
  }

  /** Ends the process by `signal` and waits for it. */
  async kill(signal: NodeJS.Signals): Promise<number | NodeJS.Signals> {
    this.signal(signal);
    return this.exited();
  }

  /** The TCP URL that the server's log tells. */
  async readUrl(): Promise<string> {
    const line = await until("the log says where the server listens", () => this.log.find(/^ready on /));
    return (line.urls as string[]).find((url) => url.startsWith("http:")) ?? "";
  }

  /** SIGKILL, and the next start. */
  async crash(killPoint?: KillPoint): Promise<void> {
    await this.kill("SIGKILL");
    await this.start(killPoint);
  }

  /** SIGTERM. @throws Error if the server does not leave in order. */
  async stop(): Promise<void> {
    const status = await this.kill("SIGTERM");
    if (status !== 0) throw new Error(`the server left with ${status}:\n${this.log}`);
  }

  /** The command line on this instance. */
  command(...args: string[]): Promise<CommandResult> {
    return this.startCommand(...args).ended;
  }

  /** The same, for who wants to see what it says while it runs. */
  startCommand(...args: string[]): RunningCommand {
    return startTensord(args, this.env, asUser(this.#options.uid));
  }

  /** Stops, purges, and asserts that nothing is left and that the log had nothing unexpected. */
  async [Symbol.asyncDispose](): Promise<void> {
    const failures: string[] = [];
    this.killAfter(undefined);
    if (this.#process !== undefined) {
      const status = await this.#end();
      if (status !== 0) failures.push(`the server left with ${status}:\n${this.log}`);
    }
    const failure = await this.#purge();
    if (failure !== undefined) failures.push(failure);
    const left = listNames(this.instance);
    if (left.length > 0) failures.push(`left behind after purge: ${left.join(", ")}`);
    for (const name of left) rmSync(join(this.instance.shmDirectory, name), { recursive: true });
    if (failures.length > 0) throw new Error(failures.join("\n"));
    this.log.assertQuiet();
  }

  /** What `tensord purge` does. @returns what it failed with */
  async #purge(): Promise<string | undefined> {
    const { uid } = this.#options;
    if (uid !== undefined) {
      const { status, stderr } = await this.command("purge");
      return status === 0 ? undefined : `purge left with ${status}: ${stderr}`;
    }
    try {
      // In this process: one of its own would take a fifth of a second, hundreds of times.
      await purge({ shmDirectory: this.instance.shmDirectory, instance: this.instance.name }, false, true);
      return undefined;
    } catch (error) {
      return `purge failed: ${error}`;
    }
  }

  /** Ends the process whatever its state, with SIGTERM first. */
  async #end(): Promise<number | NodeJS.Signals> {
    try {
      this.signal("SIGCONT");
      return await this.kill("SIGTERM");
    } catch {
      this.#process?.kill("SIGKILL");
      return this.exited();
    }
  }
}

/** A started server. Dispose of it with `await using`. */
export async function startServer(options: ServerOptions = {}): Promise<TestServer> {
  await using started = new AsyncDisposableStack();
  const server = await started.use(new TestServer(options)).start();
  started.move();
  return server;
}

/** A command line's beginning for a process that may open so many files: `TEST_OPEN_FILES=64 npm test -- --only faults`. */
export function withOpenFiles(count: string | number | undefined): string[] {
  return count === undefined ? [] : ["sh", "-c", `ulimit -n ${count} && exec "$0" "$@"`];
}

/** A command line's beginning that drops root for `uid`, with the group of the same number and no other. */
export function asUser(uid: number | undefined): string[] {
  return uid === undefined ? [] : ["setpriv", `--reuid=${uid}`, `--regid=${uid}`, "--clear-groups"];
}
