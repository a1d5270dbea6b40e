/**
 * Words in shared memory that processes wait at (futex(2)): waking others, and the short look before a wait. The wait itself is
 * `futex-waits.ts`'s, since this thread must not sleep.
 */

import { library } from "./libc.ts";

/** SYS_futex of <asm/unistd.h>. */
const futexCalls: Readonly<Record<string, number>> = { x64: 202, arm64: 98 };
const FUTEX_WAKE = 1;
const everybody = 0x7fff_ffff;
const polls = 30;
const pollMs = 0.05;
/** A yield that takes longer has let others run who had work of their own; on a busy machine each would. */
const longYieldMs = 0.2;
/** After such a yield so many waits begin without a look, twice as many after the next, and none after a short one. */
const mostSkipped = 1024;
let skippedNext = 1;
let skipped = 0;

/** The number of futex(2) on this processor. */
export function futexCall(): number {
  return futexCalls[process.arch] ?? 0;
}

/** Wakes whoever waits at the word there, in every process. */
export function wakeAll(address: bigint): void {
  // Not private to this process. Who does not wait is not woken: there is no failure to act on.
  library().syscall(futexCall(), address, FUTEX_WAKE, everybody, null, 0, 0);
}

/** Looks a few times whether the word is another than `seen`, and lets others run in between where that is short. */
export function isChangedSoon(words: Int32Array, index: number, seen: number): boolean {
  if (Atomics.load(words, index) !== seen) return true;
  if (skipped > 0) {
    skipped -= 1;
    return false;
  }
  const { sched_yield } = library();
  const begin = performance.now();
  for (let poll = 0, before = begin; poll < polls; poll++) {
    sched_yield();
    const now = performance.now();
    if (now - before > longYieldMs) {
      skipped = skippedNext;
      skippedNext = Math.min(2 * skippedNext, mostSkipped);
      return Atomics.load(words, index) !== seen;
    }
    if (Atomics.load(words, index) !== seen) {
      skippedNext = 1;
      return true;
    }
    if (now - begin > pollMs) break;
    before = now;
  }
  return false;
}
