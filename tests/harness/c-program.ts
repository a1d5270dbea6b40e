/** A C program of the repository, compiled with every warning an error, and run by a test that talks to it by lines. */

import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root } from "./instance-needs.ts";
import { within } from "./server-wait.ts";
import { readLines } from "./worker.ts";

const compiler = ["gcc", "clang", "cc"].map((name) => Bun.which(name)).find((path) => path !== null);
export const needsCompiler = compiler === undefined ? "needs a C compiler" : undefined;

const strict = ["-std=c11", "-pedantic", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror", "-O1", "-g"];
const sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

/** An executable that every user may run, in a folder that every user may enter. */
export class CProgram implements Disposable {
  /** For what else a test needs there. */
  readonly folder: string;
  readonly path: string;

  private constructor(folder: string) {
    this.folder = folder;
    this.path = join(folder, "program");
  }

  /** @throws Error with what the compiler says. */
  static compile(source: string): CProgram {
    const program = new CProgram(mkdtempSync(join(tmpdir(), "tensord-c-")));
    chmodSync(program.folder, 0o755);
    const compile = (...flags: string[]) =>
      Bun.spawnSync([compiler ?? "cc", ...strict, ...flags, "-o", program.path, join(root, source)], { cwd: root });
    // Where the sanitizers' libraries are not there, the warnings have to do.
    const result = [compile(...sanitizers), undefined].find((each) => each?.exitCode === 0) ?? compile();
    if (result.exitCode === 0) return program;
    program[Symbol.dispose]();
    throw new Error(`${source} does not compile:\n${result.stderr}`);
  }

  /** @param prefix the beginning of the command line, for what it is to run under. */
  run(args: readonly string[], prefix: readonly string[] = [], env: Readonly<Record<string, string>> = {}): CRun {
    return new CRun([...prefix, this.path, ...args], env);
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

export class CRun implements AsyncDisposable {
  readonly #process: Bun.Subprocess<"pipe", "pipe", "pipe">;
  readonly #lines: AsyncIterator<string>;

  constructor(command: string[], env: Readonly<Record<string, string>>) {
    this.#process = Bun.spawn(command, {
      env: { PATH: process.env.PATH ?? "", ...env },
      stdin: "pipe",
      stdout: "pipe",
      stderr: "pipe",
    });
    this.#lines = readLines(this.#process.stdout);
  }

  get pid(): number {
    return this.#process.pid;
  }

  /** Its next line. @throws Error with what it says instead. */
  async line(): Promise<string> {
    const { value, done } = await within("the program says something", this.#lines.next());
    if (done !== true) return value;
    throw new Error(`the program left with ${await this.#process.exited}: ${await this.#process.stderr.text()}`);
  }

  /** Lets it go on to its next line. */
  async next(): Promise<string> {
    this.#process.stdin.write("\n");
    await this.#process.stdin.flush();
    return await this.line();
  }

  /** Says that there is nothing more. @returns its status, and what it complained of. */
  async end(): Promise<{ readonly status: number; readonly stderr: string }> {
    await this.#process.stdin.end();
    const status = await within("the program ends", this.#process.exited);
    return { status, stderr: await this.#process.stderr.text() };
  }

  async kill(): Promise<void> {
    this.#process.kill("SIGKILL");
    await within("the program is gone", this.#process.exited);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}
