/** Where a row works: its folder below `.tmp/generators`, the commands that run there, and the tools that stay. */

import { copyFileSync, existsSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { basename, join } from "node:path";
import { root } from "../harness/instance-needs.ts";

const { run, killGroup } = (await import(join(root, "scripts/lib/process.mjs"))) as {
  run: (command: string, args: readonly string[], options: object) => Promise<{ status: number; output: string }>;
  killGroup: (pid: number, signal: NodeJS.Signals) => void;
};

/** A compiler that has to build all of its dependencies takes a while, on a busy machine above all. */
const compilersPatienceMs = 30 * 60_000;

export const workParent = join(root, ".tmp/generators");

export class Work {
  readonly folder: string;
  /** What the generator reads. */
  readonly document: string;
  /** For all rows, and from one run to the next. */
  readonly tools = join(workParent, "tools");

  readonly #patienceMs: number;

  /**
   * @param document its path below the root
   * @param patienceMs how long a command may take before it is killed
   */
  constructor(folder: string, document: string, patienceMs = compilersPatienceMs) {
    this.folder = folder;
    this.document = join(root, document);
    this.#patienceMs = patienceMs;
  }

  /** Copies the files into the folder, which need not be there yet. */
  layOut(paths: readonly string[]): void {
    mkdirSync(this.folder, { recursive: true });
    for (const path of paths) copyFileSync(path, this.path(basename(path)));
  }

  /** A file or folder that is kept: made by `make` unless it is there. It gets its name once all of it has been made. */
  async keep(name: string, make: (path: string) => Promise<unknown>): Promise<string> {
    const path = join(this.tools, name);
    if (existsSync(path)) return path;
    mkdirSync(this.tools, { recursive: true });
    const unfinished = `${path}.${process.pid}.unfinished`;
    try {
      await make(unfinished);
      renameSync(unfinished, path);
    } finally {
      rmSync(unfinished, { recursive: true, force: true });
    }
    return path;
  }

  path(...names: readonly string[]): string {
    return join(this.folder, ...names);
  }

  /** @throws Error if what comes is not what `sha256` says. */
  async download(url: string, sha256: string, path: string): Promise<void> {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`${url} answers ${response.status}`);
    const bytes = await response.bytes();
    const found = new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
    if (found !== sha256) throw new Error(`${url} has the SHA-256 ${found}, want ${sha256}`);
    await Bun.write(path, bytes);
  }

  /** Runs a command to its end, in the row's folder. @returns what it printed. @throws Error with that, if it failed. */
  async run(
    [command = "", ...args]: readonly string[],
    options: { readonly cwd?: string; readonly env?: Readonly<Record<string, string>> } = {},
  ): Promise<string> {
    const { status, output } = await this.try([command, ...args], options);
    if (status !== 0) throw new Error(`${command} ${args.join(" ")}\nleft with ${status}:\n${output}`);
    return output;
  }

  /** As `run`, for who wants to see the output of a command that failed. */
  async try(
    [command = "", ...args]: readonly string[],
    { cwd = this.folder, env = {} }: { readonly cwd?: string; readonly env?: Readonly<Record<string, string>> } = {},
  ): Promise<{ status: number; output: string }> {
    let timer: Timer | undefined;
    const onStart = (pid: number) => {
      timer = setTimeout(() => killGroup(pid, "SIGKILL"), this.#patienceMs);
    };
    try {
      return await run(command, args, { cwd, env: { ...process.env, NO_COLOR: "1", ...env }, capture: true, onStart });
    } finally {
      clearTimeout(timer);
    }
  }
}
