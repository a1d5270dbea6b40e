/** A real server process on an instance of its own, its Unix socket alone, and the end of both when the benchmark ends. */

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { shmDirectory } from "./machine.ts";
import { bun, serverTree } from "./places.ts";

const readyDeadlineMs = 60_000;
const purgeDeadlineMs = 60_000;

/** Servers that run: a benchmark that is stopped must not leave its gigabytes behind. */
const running = new Set<BenchServer>();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.once(signal, () => {
    for (const server of running) server.killAndPurge();
    process.exit(1);
  });
}

export class BenchServer implements AsyncDisposable {
  readonly instance = `bench-${crypto.randomUUID().slice(0, 8)}`;
  readonly socket: string;
  readonly #folder = mkdtempSync(join(tmpdir(), "tensord-bench-"));
  readonly #environment: Readonly<Record<string, string>>;
  #process: ChildProcess | undefined;

  readonly #preload: string | undefined;
  readonly #executable: string | undefined;

  private constructor(
    tcpPort: string,
    preload: string | undefined,
    executable: string | undefined,
    settings: Readonly<Record<string, string>>,
  ) {
    this.#preload = preload;
    this.#executable = executable;
    this.socket = `${settings.TENSORD_SHM_DIR ?? shmDirectory}/tensord.${this.instance}/http.sock`;
    const own = { TENSORD_INSTANCE: this.instance, TENSORD_PORT: tcpPort, TENSORD_LOG_LEVEL: "info" };
    this.#environment = { ...own, ...settings };
  }

  /**
   * @param withTcp whether it listens on a port of loopback too.
   * @param preload the path of what its process runs first.
   * @param executable the path of a built server, instead of the sources; it takes no preload.
   * @param settings by variable; where none says so, nothing lies ready: what is measured is what the server does by itself.
   */
  static async start({
    withTcp = false,
    preload = undefined as string | undefined,
    executable = undefined as string | undefined,
    settings = { TENSORD_RESERVE_BYTES: "0" } as Readonly<Record<string, string>>,
  } = {}): Promise<BenchServer> {
    const server = new BenchServer(withTcp ? "0" : "", preload, executable, settings);
    try {
      await server.start();
      return server;
    } catch (error) {
      server.killAndPurge();
      throw error;
    }
  }

  get pid(): number {
    if (this.#process?.pid === undefined) throw new Error("the server does not run");
    return this.#process.pid;
  }

  /** The port of loopback TCP, as the log says. */
  get port(): number {
    const [, port] = /"http:[^"]*:(\d+)"/.exec(readFileSync(join(this.#folder, "log"), "utf8")) ?? [];
    if (port === undefined) throw new Error("the server does not listen on TCP");
    return Number(port);
  }

  /** Starts the process, with another preload if that is said. @returns the ms from its spawn to a `/readyz` that is answered with 200. */
  async start(preload = this.#preload): Promise<number> {
    running.add(this);
    const log = openSync(join(this.#folder, "log"), "a");
    const begin = performance.now();
    const preloads = preload === undefined ? [] : ["--preload", preload];
    const sources = ["--no-env-file", "--no-install", "--no-orphans", ...preloads, "src/main.ts"];
    const [command, before] = this.#executable === undefined ? [bun, sources] : [this.#executable, []];
    this.#process = spawn(command, [...before, "serve"], {
      cwd: serverTree,
      env: { ...process.env, ...this.#environment, BENCH_PROBE: this.probePath },
      stdio: ["ignore", log, log],
      // A group of its own: the signals of a terminal are for us, and we end it.
      detached: true,
    });
    while (!(await this.#isReady())) {
      if (this.#process.exitCode !== null || performance.now() - begin > readyDeadlineMs) {
        throw new Error(`the server did not start:\n${readFileSync(join(this.#folder, "log"), "utf8")}`);
      }
      await Bun.sleep(1);
    }
    return performance.now() - begin;
  }

  /** Where the probe of `loop-probe.ts` writes, if that is preloaded. */
  get probePath(): string {
    return join(this.#folder, "probe");
  }

  /** Ends the process with `signal` and waits for its end. Regions stay. */
  async end(signal: "SIGTERM" | "SIGKILL"): Promise<void> {
    const child = this.#process;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    child.once("exit", () => resolve());
    child.kill(signal);
    await promise;
  }

  /** One request. @throws Error with the answer, unless its status is below 300. */
  async call<Answer = unknown>(method: string, path: string, body?: unknown): Promise<Answer> {
    const response = await fetch(`http://localhost${path}`, {
      method,
      unix: this.socket,
      ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path} answered ${response.status}: ${text}`);
    return JSON.parse(text) as Answer;
  }

  async #isReady(): Promise<boolean> {
    try {
      return (await fetch("http://localhost/readyz", { unix: this.socket })).ok;
    } catch {
      return false;
    }
  }

  /** A line of `/proc/<pid>/smaps_rollup`, in bytes. */
  memoryBytes(field: "Pss" | "Rss" | "Private_Dirty" | "Anonymous"): number {
    const text = readFileSync(`/proc/${this.pid}/smaps_rollup`, "utf8");
    return Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, "m").exec(text)?.[1]) * 1024;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end("SIGTERM");
    this.#purge();
  }

  /** The end in one synchronous turn. */
  killAndPurge(): void {
    this.#process?.kill("SIGKILL");
    this.#purge();
  }

  #purge(): void {
    running.delete(this);
    const deadline = performance.now() + purgeDeadlineMs;
    for (;;) {
      const { status, stderr } = spawnSync(bun, ["src/main.ts", "purge"], {
        cwd: serverTree,
        env: { ...process.env, ...this.#environment },
        encoding: "utf8",
      });
      if (status === 0) break;
      // A killed server holds its lock until the kernel has taken it down.
      if (performance.now() > deadline) throw new Error(`purge failed: ${stderr}`);
    }
    rmSync(this.#folder, { recursive: true });
  }
}
