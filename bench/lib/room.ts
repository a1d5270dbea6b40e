/** Whether a benchmark may start, and whether it stayed alone: shared memory that is free, and cores that others use. */

import { readFileSync } from "node:fs";
import { freeShmBytes, round, shmDirectory } from "./machine.ts";
import { say } from "./result.ts";

const waitMs = 60_000;
const lookMs = 2000;
/** Cores that others may use before we call it work. */
const quietCores = 0.06;
/** Clock ticks a second in `/proc` (proc(5), sysconf(_SC_CLK_TCK)): 100 on every Linux of today. */
const ticksPerSecond = 100;

/**
 * Waits until `byteSize` bytes are free, and up to a minute for quiet.
 * @returns false, and says why, if there is no room: the caller skips.
 */
export async function findRoom(byteSize: number): Promise<boolean> {
  const deadline = performance.now() + waitMs;
  for (let told = false; ; told = true) {
    const watch = new OthersWatch([process.pid]);
    await Bun.sleep(lookMs);
    const busy = watch.cores();
    const free = freeShmBytes();
    if (free >= byteSize && busy <= quietCores) return true;
    const state = `${round(free / 2 ** 30)} GiB of ${shmDirectory} are free and others use ${round(busy)} cores`;
    if (performance.now() > deadline) {
      if (free >= byteSize) say(`note   ${state}: times will be high and ratios uncertain`);
      else say(`SKIP   ${state}: want ${round(byteSize / 2 ** 30)} GiB free`);
      return free >= byteSize;
    }
    if (!told) say(`wait   ${state}: want ${round(byteSize / 2 ** 30)} GiB and at most ${quietCores} cores`);
  }
}

/** Measures how much of the machine everybody but the processes `pids` uses, from its making on. */
export class OthersWatch {
  readonly #pids: readonly number[];
  readonly #busyTicks: number;
  readonly #ownTicks: number;
  readonly #begin = performance.now();

  constructor(pids: readonly number[]) {
    this.#pids = pids;
    this.#busyTicks = readBusyTicks();
    this.#ownTicks = this.#readOwnTicks();
  }

  /**
   * Cores that others used on average since then. Exact to about `0.02 / seconds`, since ticks are 10 ms.
   * @param endedSeconds processor time of children of ours that have begun and ended meanwhile.
   */
  cores(endedSeconds = 0): number {
    const seconds = (performance.now() - this.#begin) / 1000;
    const others = readBusyTicks() - this.#busyTicks - (this.#readOwnTicks() - this.#ownTicks);
    return Math.max(0, (others / ticksPerSecond - endedSeconds) / seconds);
  }

  /** Whether others used so little that what was measured meanwhile can be believed. */
  isQuiet(endedSeconds = 0): boolean {
    return this.cores(endedSeconds) <= quietCores;
  }

  #readOwnTicks(): number {
    return this.#pids.reduce((sum, pid) => sum + readTicks(pid), 0);
  }
}

/** Of all cores, since boot (proc(5), `/proc/stat`): everything but idle, iowait and guest, which user has in it. */
function readBusyTicks(): number {
  const [line = ""] = readFileSync("/proc/stat", "utf8").split("\n");
  const [user = 0, nice = 0, system = 0, , , irq = 0, soft = 0, steal = 0] = line
    .trim()
    .split(/\s+/)
    .slice(1)
    .map(Number);
  return user + nice + system + irq + soft + steal;
}

/** User and system time of one process with its threads; 0 once it is gone. */
function readTicks(pid: number): number {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return Number(fields[11]) + Number(fields[12]);
  } catch {
    return 0;
  }
}

/**
 * What can be believed of what was measured piece by piece: the pieces that nobody disturbed, or all, with a note, if
 * those are fewer than `atLeast`.
 */
export function chooseQuiet<Piece extends { readonly isQuiet: boolean }>(
  pieces: readonly Piece[],
  atLeast: number,
): readonly Piece[] {
  const quiet = pieces.filter(({ isQuiet }) => isQuiet);
  if (quiet.length >= atLeast) return quiet;
  say(
    `note   others were at work in ${pieces.length - quiet.length} of ${pieces.length} pieces: all of them count, and ratios are uncertain`,
  );
  return pieces;
}
