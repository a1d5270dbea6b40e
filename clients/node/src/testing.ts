/** `@tensord/client/testing`: a private server for the tests of programs that use tensord. */

import "./dispose.ts";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { closeSync, existsSync, fstatSync, mkdtempSync, openSync, readSync, rmSync } from "node:fs";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, dirname, join, resolve } from "node:path";
import { type Client, type ConnectOptions, connect, isTensordError, TensordError } from "@tensord/client";
import * as kinds from "./check/kinds.ts";
import { checkOptions, tableOf } from "./check/options.ts";
import type { Kind } from "./check/value.ts";

export interface PrivateServerOptions {
  /** The server, or the beginning of its command line; else `tensord` of a `node_modules` from here upwards, or of the PATH. */
  readonly executable?: string | readonly string[];
  /** Where its memory is: `/dev/shm`. */
  readonly shmDirectory?: string;
  /** Further `TENSORD_*` variables of the server. */
  readonly settings?: Readonly<Record<string, string>>;
  /** How long it may take until it is ready: a minute. */
  readonly timeoutMs?: number;
}

/** A server that nobody else knows. `await using` ends it, as does the end of this process, however that comes. */
export interface PrivateServer extends AsyncDisposable {
  readonly instance: string;
  /** Where it listens, `unix:///…`. */
  readonly url: string;
  /** What the environment of a process must have in which `connect()` is to find it. */
  readonly env: Readonly<Record<string, string>>;
  readonly pid: number;
  /** A client of it, the caller's to close; `options` are those of `connect`. */
  connect(options?: Omit<ConnectOptions, "url">): Promise<Client>;
  /** What the server has written so far: its log, a line of JSON for each entry. */
  log(): string;
  /**
   * Deletes all regions and unregisters all models but the default one, so that the next test finds none. What is still mapped
   * loses its name, and its bytes go with its last mapping.
   */
  clear(): Promise<void>;
  /** Ends it; nothing of it is left. */
  close(): Promise<void>;
}

const pollMs = 250;
const stopMs = 30_000;
const install = "Install the server beside this package (npm install tensord), or say `executable`.";

const executable: Kind<string | readonly string[]> = {
  want: "a path, or a list of a command line's words",
  accepts: (value) => kinds.text.accepts(value) || (kinds.texts.accepts(value) && (value as []).length > 0),
};
const table = tableOf<PrivateServerOptions>()({
  executable,
  shmDirectory: kinds.text,
  settings: kinds.labels,
  timeoutMs: kinds.waitMs,
});

/**
 * Starts a server that nobody else knows, with a Unix socket alone. Any number may run beside each other.
 * @throws TensordError `feature-unavailable` where there is no server to run, `server-unavailable` with the end of its log
 *   when it does not start
 */
export async function privateServer(options: PrivateServerOptions = {}): Promise<PrivateServer> {
  checkOptions("start a private server", table, options);
  const { shmDirectory = "/dev/shm", settings = {}, timeoutMs = 60_000 } = options;
  const command = toCommand(options.executable ?? findExecutable());
  const running = new RunningServer(command, shmDirectory, settings);
  try {
    await running.ready(timeoutMs);
    return running;
  } catch (error) {
    await running.close();
    throw error;
  }
}

type CommandLine = readonly [string, ...string[]];

function toCommand(given: string | readonly string[]): CommandLine {
  return (typeof given === "string" ? [given] : [...given]) as unknown as CommandLine;
}

function findExecutable(): string {
  const upwards: string[] = [];
  for (let at = resolve("."); ; at = dirname(at)) {
    upwards.push(join(at, "node_modules/.bin"));
    if (at === dirname(at)) break;
  }
  const folders = [...upwards, ...(process.env.PATH ?? "").split(delimiter).filter((folder) => folder !== "")];
  const found = folders.map((folder) => join(folder, "tensord")).find((path) => existsSync(path));
  if (found !== undefined) return found;
  throw new TensordError(
    "feature-unavailable",
    "Cannot find the server: no tensord is in node_modules or on the PATH",
    {
      hint: install,
    },
  );
}

class RunningServer implements PrivateServer {
  readonly instance = `test-${randomBytes(8).toString("hex")}`;
  readonly url: string;
  readonly env: Readonly<Record<string, string>>;
  readonly #command: CommandLine;
  readonly #directory: string;
  readonly #log = openLog();
  readonly #process: ChildProcess;
  /** What it ended with: a status, a signal, or why it could not be started. */
  readonly #ended: Promise<number | string>;
  #status: number | string | undefined;
  #closing: Promise<void> | undefined;

  constructor(command: CommandLine, shmDirectory: string, settings: Readonly<Record<string, string>>) {
    this.#command = command;
    this.#directory = join(shmDirectory, `tensord.${this.instance}`);
    this.url = `unix://${this.#directory}/http.sock`;
    this.env = { TENSORD_INSTANCE: this.instance, TENSORD_SHM_DIR: shmDirectory, TENSORD_URL: this.url };
    // Of the caller's settings none is meant for this one.
    const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith("TENSORD_"));
    const [path, ...words] = command;
    this.#process = spawn(path, [...words, "serve", "--ephemeral"], {
      env: { ...Object.fromEntries(inherited), TENSORD_PORT: "", ...this.env, ...settings },
      // Its input's end is what the server waits for: the kernel closes it with this process.
      stdio: ["pipe", this.#log, this.#log],
    });
    this.#ended = new Promise((settle) => {
      this.#process.once("error", ({ message }) => settle(message));
      this.#process.once("exit", (status, signal) => settle(status ?? signal ?? ""));
    });
    void this.#ended.then((status) => {
      this.#status = status;
    });
    // It keeps nobody's event loop alive.
    this.#process.unref();
    // Bun's has no such method.
    (this.#process.stdin as Partial<Socket> | null)?.unref?.();
    this.#process.stdin?.on("error", () => undefined);
  }

  get pid(): number {
    return this.#process.pid ?? 0;
  }

  connect(options: Omit<ConnectOptions, "url"> = {}): Promise<Client> {
    return connect({ ...options, url: this.url });
  }

  log(): string {
    const bytes = Buffer.alloc(fstatSync(this.#log).size);
    return bytes.toString("utf8", 0, readSync(this.#log, bytes, 0, bytes.length, 0));
  }

  async clear(): Promise<void> {
    const client = await this.connect({ session: false });
    try {
      for await (const region of client.list()) {
        await client.delete(region).catch((error: unknown) => {
          if (!isTensordError(error, "region-not-found")) throw error;
        });
      }
      for await (const { name } of client.models()) {
        if (name !== "default") await client.unregisterModel(name, { drain: true });
      }
    } finally {
      await client.close();
    }
  }

  async ready(timeoutMs: number): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    while (this.#status === undefined && performance.now() < deadline) {
      const client = await this.connect({ session: false, waitMs: pollMs }).catch((error: unknown) => {
        if (isTensordError(error, "server-unavailable")) return undefined;
        throw error;
      });
      if (client !== undefined) return client.close();
    }
    const status = this.#status;
    if (typeof status === "string" && this.pid === 0) {
      throw new TensordError("feature-unavailable", `Cannot start ${this.#command[0]}: ${status}`, { hint: install });
    }
    const how = status === undefined ? `is not ready after ${timeoutMs} ms` : `ended with ${status}`;
    const lines = this.log().trimEnd().split("\n").slice(-10).join("\n");
    throw new TensordError("server-unavailable", `Cannot start a private server: it ${how}, and wrote:\n${lines}`, {
      hint: "`tensord doctor` says what is wrong with this host. A slow one may take a larger timeoutMs.",
    });
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#process.stdin?.destroy();
    this.#process.ref();
    const killer = setTimeout(() => this.#process.kill("SIGKILL"), stopMs);
    await this.#ended;
    clearTimeout(killer);
    closeSync(this.#log);
    if (!existsSync(this.#directory)) return;
    // It was killed, or could not purge what it had.
    const [path, ...words] = this.#command;
    spawnSync(path, [...words, "purge"], { env: { ...process.env, ...this.env }, stdio: "ignore" });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** A file that nobody finds, so that nobody has to remove it. */
function openLog(): number {
  const folder = mkdtempSync(join(tmpdir(), "tensord-testing-"));
  try {
    return openSync(join(folder, "log"), "a+", 0o600);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
