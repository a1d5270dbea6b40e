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
/** One yield may take as long as others are due, which is for them; several may not. */
const pollMs = 0.05;

/** The number of futex(2) on this processor. */
export function futexCall(): number {
  return futexCalls[process.arch] ?? 0;
}

/** Wakes whoever waits at the word there, in every process. */
export function wakeAll(address: bigint): void {
  // Not private to this process. Who does not wait is not woken: there is no failure to act on.
  library().syscall(futexCall(), address, FUTEX_WAKE, everybody, null, 0, 0);
}

/** Looks a few times whether the word is another than `seen`, and lets others run in between. */
export function isChangedSoon(words: Int32Array, index: number, seen: number): boolean {
  if (Atomics.load(words, index) !== seen) return true;
  const { sched_yield } = library();
  const giveUpAt = performance.now() + pollMs;
  for (let poll = 0; poll < polls && performance.now() < giveUpAt; poll++) {
    sched_yield();
    if (Atomics.load(words, index) !== seen) return true;
  }
  return false;
}
