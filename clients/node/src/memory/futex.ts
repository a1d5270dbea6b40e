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
const longYieldMs = 0.5;
const withoutYieldsMs = 1000;
let yieldsFrom = 0;

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
  const { sched_yield } = library();
  const begin = performance.now();
  let now = begin;
  for (let poll = 0; poll < polls && now - begin < pollMs; poll++) {
    if (now >= yieldsFrom) sched_yield();
    const before = now;
    now = performance.now();
    if (now - before > longYieldMs) yieldsFrom = now + withoutYieldsMs;
    if (Atomics.load(words, index) !== seen) return true;
  }
  return false;
}
