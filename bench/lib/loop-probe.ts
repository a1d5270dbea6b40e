/**
 * Preloaded into a server: how long its event loop was held at a time, by the clock and by the processor time of its own
 * thread, which others at work do not lengthen. SIGUSR2 writes the longest of both since the last one.
 */

import { dlopen, FFIType, ptr } from "bun:ffi";
import { renameSync, writeFileSync } from "node:fs";

export interface LongestGap {
  /** In ms. */
  readonly clock: number;
  readonly thread: number;
  /** How often the thread was at it for more than 2 ms. */
  readonly long: number;
}

const longMs = 2;
const none: LongestGap = { clock: 0, thread: 0, long: 0 };

const tickMs = 1;
const path = process.env.BENCH_PROBE;

/** clock_gettime(2), 3 is CLOCK_THREAD_CPUTIME_ID: getrusage(2) counts in ticks of 4 ms here. */
const libc = dlopen("libc.so.6", {
  clock_gettime: { args: [FFIType.i32, FFIType.ptr], returns: FFIType.i32 },
});
const time = new BigInt64Array(2);

function threadMs(): number {
  libc.symbols.clock_gettime(3, ptr(time));
  return Number(time[0] ?? 0n) * 1000 + Number(time[1] ?? 0n) / 1e6;
}

if (path !== undefined && Bun.isMainThread) {
  let longest = none;
  let [lastClock, lastThread] = [performance.now(), threadMs()];
  setInterval(() => {
    const [clock, thread] = [performance.now(), threadMs()];
    const gap = thread - lastThread;
    longest = {
      clock: Math.max(longest.clock, clock - lastClock - tickMs),
      thread: Math.max(longest.thread, gap),
      long: longest.long + Number(gap > longMs),
    };
    [lastClock, lastThread] = [clock, thread];
  }, tickMs).unref();
  process.on("SIGUSR2", () => {
    writeFileSync(`${path}.new`, JSON.stringify(longest));
    renameSync(`${path}.new`, path);
    longest = none;
  });
}
