/** The server as a process of its own, for what is asked of a process: how much memory it takes, and that it lives on. */

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { purge } from "../../../src/server/cli/purge.ts";
import { createInstance, type Instance } from "../../harness/instance.ts";
import { runtimeSettings, tensord } from "../../harness/server-program.ts";

const root = join(import.meta.dirname, "../../..");

export class ServerProcess implements AsyncDisposable {
  readonly #instance: Instance;
  readonly #child: Bun.Subprocess<"ignore", "pipe", "inherit">;

  private constructor(instance: Instance, child: Bun.Subprocess<"ignore", "pipe", "inherit">) {
    this.#instance = instance;
    this.#child = child;
  }

  get socket(): string {
    return this.#instance.socket;
  }

  static async start(): Promise<ServerProcess> {
    const instance = createInstance();
    const child = Bun.spawn([...tensord, "serve"], {
      cwd: root,
      env: {
        PATH: process.env.PATH,
        ...runtimeSettings,
        TENSORD_INSTANCE: instance.name,
        TENSORD_PORT: "",
        TENSORD_SHM_DIR: instance.shmDirectory,
        TENSORD_RESERVE_BYTES: "0",
      },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "inherit",
    });
    const server = new ServerProcess(instance, child);
    await server.#untilReady();
    return server;
  }

  async #untilReady(): Promise<void> {
    let text = "";
    for await (const bytes of this.#child.stdout) {
      text += Buffer.from(bytes).toString();
      if (text.includes("ready on")) return;
    }
    throw new Error(`the server did not start: ${text}`);
  }

  /** Resident bytes: now, and the most since the last `forgetPeak`. proc(5). */
  get memory(): { readonly residentBytes: number; readonly peakBytes: number } {
    const status = readFileSync(`/proc/${this.#child.pid}/status`, "utf8");
    const bytes = (field: string) => Number(new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(status)?.[1]) * 1024;
    return { residentBytes: bytes("VmRSS"), peakBytes: bytes("VmHWM") };
  }

  forgetPeak(): void {
    writeFileSync(`/proc/${this.#child.pid}/clear_refs`, "5");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGTERM");
    await this.#child.exited;
    const { shmDirectory, name } = this.#instance;
    await purge({ shmDirectory, instance: name }, false, true);
  }
}
