/**
 * A stand-in for the CUDA driver, for one test: cards of its own, which calls fail, which were made, and what of the cards is in
 * use. It shows how the driver is called and what is undone, and nothing about a GPU (tests/cuda/README.md).
 */

import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isLocked } from "../../src/memory/os/libc.ts";
import { root } from "./instance-needs.ts";
import { until } from "./server-wait.ts";

const MiB = 2 ** 20;

const build = Bun.spawnSync([process.execPath, "tests/cuda/build.mjs"], { cwd: root });
const answer = build.stdout.toString().trim();
if (build.exitCode !== 0 && build.exitCode !== 3) throw new Error(`the stand-in driver: ${build.stderr}`);

/** A reason to skip, or undefined. */
export const needsStandIn = build.exitCode === 3 ? answer : undefined;

/** The folder with the libraries. */
export const standInLibraries = answer;

export interface StandInDevice {
  readonly uuid?: string;
  readonly bytes?: number;
  /** Without spaces it is what the driver says; underscores stand for them. */
  readonly name?: string;
  /** Whether it has virtual memory management. */
  readonly vmm?: boolean;
  readonly posixFd?: boolean;
  /** CUcomputemode: 2 is prohibited, 3 exclusive. */
  readonly computeMode?: number;
  readonly granularity?: number;
  /** Whether its driver stays up, as NVML tells. */
  readonly persistence?: boolean;
  /** Whether it is divided, as NVML tells. */
  readonly mig?: boolean;
}

export interface StandInOptions {
  readonly devices?: readonly StandInDevice[];
  /** 12040 is CUDA 12.4. */
  readonly driverVersion?: number;
  /** What each context takes of its card. */
  readonly contextBytes?: number;
  /** Whether new memory shows bytes of somebody else. */
  readonly dirty?: boolean;
  /** Whether cuMemCreate wants a context. */
  readonly createNeedsContext?: boolean;
  /** Whether NVML starts; it hangs if it is told to. */
  readonly nvml?: boolean | "hang";
}

/** What some process has of a card, as long as it has it. */
export interface InUse {
  readonly kind: "memory" | "context";
  readonly card: number;
  /** The process that made it, which need not live. */
  readonly pid: number;
  readonly bytes: number;
}

export interface Call {
  readonly pid: number;
  readonly thread: number;
  readonly function: string;
  readonly arguments: string;
  readonly result: number;
}

/** The UUID that card `ordinal` has if the test names none. */
export function standInUuid(ordinal: number): string {
  return `GPU-57a4d000-0000-4000-8000-${String(ordinal).padStart(12, "0")}`;
}

export class CudaStandIn implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), "tensord-cuda-"));

  constructor(options: StandInOptions = {}) {
    this.#settle(options);
  }

  /** The environment of a process that is to find it. */
  get env(): Record<string, string> {
    return { LD_LIBRARY_PATH: standInLibraries, STAND_IN_CUDA_DIR: this.folder };
  }

  /** The same with a driver that is too old. */
  get oldEnv(): Record<string, string> {
    return { ...this.env, LD_LIBRARY_PATH: join(standInLibraries, "old") };
  }

  #settle({
    devices = [{}],
    driverVersion = 13000,
    contextBytes = 0,
    dirty = false,
    createNeedsContext = false,
    nvml = false,
  }: StandInOptions): void {
    const lines = [
      `driver ${driverVersion}`,
      `context_bytes ${contextBytes}`,
      `dirty ${Number(dirty)}`,
      `create_needs_context ${Number(createNeedsContext)}`,
      `nvml ${nvml === "hang" ? 2 : Number(nvml)}`,
      ...devices.map(toLine),
    ];
    writeFileSync(join(this.folder, "settings"), `${lines.join("\n")}\n`);
  }

  /**
   * Tells calls to fail, from now on and in place of what was told before: `cuMemMap 2 2`, `cuMemCreate 1 after kill`
   * (tests/cuda/calls.c). Each process counts its calls from now on.
   */
  order(...lines: readonly string[]): void {
    // At once, so that no process reads half of it.
    writeFileSync(join(this.folder, "control.new"), `${lines.join("\n")}\n`);
    renameSync(join(this.folder, "control.new"), join(this.folder, "control"));
  }

  /** Every call so far, in order. @param name of one function only. */
  calls(name?: string): Call[] {
    const path = join(this.folder, "log");
    const lines = existsSync(path) ? readFileSync(path, "utf8").trimEnd().split("\n") : [];
    const calls = lines.flatMap((line) => toCall(line) ?? []);
    return name === undefined ? calls : calls.filter((call) => call.function === name);
  }

  /** Whether an order was obeyed at this function. */
  wasOrdered(name: string): boolean {
    return this.countOrdered(name) > 0;
  }

  /** How often. */
  countOrdered(name: string): number {
    const path = join(this.folder, "log");
    return existsSync(path) ? readFileSync(path, "utf8").split(` ${name} ordered: `).length - 1 : 0;
  }

  /** What is in use of all cards: memory and contexts, whoever has them. */
  inUse(kind?: InUse["kind"]): InUse[] {
    const cards = readdirSync(this.folder).filter((name) => /^card\d+$/.test(name));
    const found = cards.flatMap((card) =>
      readdirSync(join(this.folder, card)).flatMap((name) => this.#look(card, name)),
    );
    return found
      .filter((each) => kind === undefined || each.kind === kind)
      .toSorted((a, b) => a.card - b.card || a.bytes - b.bytes);
  }

  #look(card: string, name: string): InUse[] {
    const path = join(this.folder, card, name);
    const [kind, pid] = name.split("-");
    let fd: number;
    try {
      fd = openSync(path, "r+");
    } catch (error) {
      // A process has taken it away meanwhile: it was in nobody's use.
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
      throw error;
    }
    try {
      if (!isLocked(fd, 0n, 1n)) return [];
      return [
        {
          kind: kind as InUse["kind"],
          card: Number(card.slice("card".length)),
          pid: Number(pid),
          bytes: statSync(path).size,
        },
      ];
    } finally {
      closeSync(fd);
    }
  }

  /** Fails unless all of every card is free again, as soon as every process that had something of it is gone. */
  async [Symbol.asyncDispose](): Promise<void> {
    await until("no process has anything of a card", () => this.inUse().length === 0);
    rmSync(this.folder, { recursive: true });
  }
}

function toLine(device: StandInDevice, ordinal: number): string {
  const { uuid = standInUuid(ordinal), bytes = 256 * MiB, vmm, posixFd, persistence, mig, ...others } = device;
  const words = [
    ...Object.entries({ vmm, posix_fd: posixFd, persistence, mig }).flatMap(([key, is]) =>
      is === undefined ? [] : `${key}=${Number(is)}`,
    ),
    ...Object.entries({ name: others.name, compute_mode: others.computeMode, granularity: others.granularity }).flatMap(
      ([key, value]) => (value === undefined ? [] : `${key}=${value}`),
    ),
  ];
  return ["device", uuid, bytes, ...words].join(" ");
}

function toCall(line: string): Call | undefined {
  const match = /^(\d+) (\d+) (\w+)(?: (.*))? = (\d+)$/.exec(line);
  if (match === null) return undefined;
  const [, pid, thread, name = "", words = "", result] = match;
  return { pid: Number(pid), thread: Number(thread), function: name, arguments: words, result: Number(result) };
}
