/**
 * Starts copiers, and takes what they say. Whatever becomes of one (an error of the driver, a crash, a kill, a hang) is an error of that work
 * alone: it is ended, and with it goes all that it had of the device.
 */

import { TensordError } from "../memory/error.ts";
import { limits } from "../memory/limits.ts";
import { toOutOfDescriptors, withSpare } from "../memory/os/descriptors.ts";
import { ownProgram } from "../memory/os/own-program.ts";
import { type CopierJob, type CopierLine, copierCommand } from "./copier-job.ts";
import { tooLate, toRefused } from "./refusal.ts";

/** What is to be done, and what it is called in a sentence. */
export interface CopierWork extends Omit<CopierJob, "parent"> {
  readonly what: string;
  /** A descriptor of the device's memory; it stays the caller's. */
  readonly handle: number;
  /** The file that a `fill` reads. */
  readonly source: number | undefined;
}

export interface DeviceCopier extends Disposable {
  /**
   * @param onChunk hears how many bytes are done since the last time, and every now and then of none; what it throws ends the work.
   * @returns the hashes of the chunks, in order. The process has ended, however this ends.
   * @throws TensordError `out-of-device-memory`, `out-of-descriptors`, `io-error`, `deadline-exceeded`, or what `onChunk` throws.
   */
  run(work: CopierWork, onChunk: (byteSize: number) => void): Promise<readonly bigint[]>;
}

export interface CopierOptions {
  /** How long a copier may say nothing. */
  readonly answerMs?: number | undefined;
}

type Child = Bun.Subprocess<"ignore", "pipe", "ignore">;

export class Copiers implements DeviceCopier {
  readonly #answerMs: number;
  readonly #running = new Set<Child>();
  /** How many run, or are about to. */
  #taken = 0;

  constructor({ answerMs = limits.driverAnswerMs }: CopierOptions = {}) {
    this.#answerMs = answerMs;
  }

  async run(work: CopierWork, onChunk: (byteSize: number) => void): Promise<readonly bigint[]> {
    // Each takes a context on the device, and two chunks of pinned memory.
    while (this.#taken >= limits.copiers) {
      onChunk(0);
      await Bun.sleep(limits.copierLookMs);
    }
    this.#taken += 1;
    try {
      return await this.#run(work, onChunk);
    } finally {
      this.#taken -= 1;
    }
  }

  async #run(work: CopierWork, onChunk: (byteSize: number) => void): Promise<readonly bigint[]> {
    const child = start(work);
    this.#running.add(child);
    let failure: unknown;
    let heardAt = performance.now();
    const end = (error: unknown) => {
      failure ??= error;
      child.kill("SIGKILL");
    };
    const look = setInterval(() => {
      try {
        onChunk(0);
        if (performance.now() - heardAt > this.#answerMs) end(tooLate(work.what, this.#answerMs));
      } catch (error) {
        end(error);
      }
    }, limits.copierLookMs);
    const hashes: bigint[] = [];
    let isDone = false;
    try {
      for await (const line of readLines(child.stdout)) {
        heardAt = performance.now();
        if ("done" in line) isDone = true;
        else if ("hash" in line) {
          hashes.push(BigInt(line.hash));
          onChunk(line.bytes);
        } else throw toFailure(line, work.what);
      }
    } catch (error) {
      end(error);
    }
    // One that has said all, and does not end, is waited for no longer than for anything else.
    await child.exited;
    clearInterval(look);
    this.#running.delete(child);
    if (isDone) return hashes;
    throw failure ?? ended(child, work.what);
  }

  /** Who waits for one is told that it ended. */
  [Symbol.dispose](): void {
    for (const child of this.#running) child.kill("SIGKILL");
  }
}

function start({ deed, uuid, allocationBytes, byteSize, sourceOffset, handle, source, what }: CopierWork): Child {
  const job: CopierJob = { deed, uuid, allocationBytes, byteSize, sourceOffset, parent: process.pid };
  const descriptors = source === undefined ? [handle] : [handle, source];
  try {
    return withSpare(() =>
      Bun.spawn([...ownProgram(), copierCommand, JSON.stringify(job)], {
        env: process.env,
        stdio: ["ignore", "pipe", "ignore", ...descriptors],
      }),
    ) as Child;
  } catch (error) {
    throw (
      toOutOfDescriptors(error) ??
      new TensordError(
        "io-error",
        `Cannot ${what}: no process can be started for it: ${(error as Error).message}`,
        { hint: "See whether this user may start one (ulimit -u, the cgroup's pids.max)." },
        { cause: error },
      )
    );
  }
}

async function* readLines(output: ReadableStream<Uint8Array>): AsyncGenerator<CopierLine> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const bytes of output) {
    const lines = (rest + decoder.decode(bytes, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) yield JSON.parse(line) as CopierLine;
  }
}

function toFailure(line: Exclude<CopierLine, { hash: string } | { done: true }>, what: string): TensordError {
  if ("refusal" in line) return toRefused(line.refusal, what, undefined, undefined);
  return new TensordError("io-error", `Cannot ${what}: ${line.reason}`, {
    hint: "Ask again, and see how the device is (nvidia-smi, and the kernel's log).",
  });
}

function ended({ signalCode, exitCode }: Child, what: string): TensordError {
  const how = signalCode === null ? `with status ${exitCode}` : `by ${signalCode}`;
  return new TensordError("io-error", `Cannot ${what}: the process that does it ended ${how}`, {
    hint: "Ask again. If it goes on, the driver crashes, or the machine's memory is full: see the kernel's log.",
  });
}
