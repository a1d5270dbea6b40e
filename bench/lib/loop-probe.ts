/**
 * Preloaded into a server: for how long its event loop was held at a time, in processor time of its own thread, which others at work do not
 * lengthen, and by the clock. What is timed is one round of the loop, from one look at what has come to the next: while there is work it looks
 * in every round, else each millisecond. SIGUSR2 writes the longest since the last one, and which of them a collection ended in;
 * SIGWINCH, what a collection takes that is made now.
 */

import { dlopen, FFIType, ptr } from "bun:ffi";
import { edenGC } from "bun:jsc";
import { renameSync, writeFileSync } from "node:fs";

/** The longest rounds, in ms. */
export interface Held {
  readonly clock: number;
  readonly thread: number;
  /** Of the rounds in which no collection ended, and of the others. */
  readonly uncollected: number;
  readonly collected: number;
  /** How many took over 2 ms, of either. */
  readonly long: number;
  readonly longCollected: number;
  /** How often a collection ended, at the least: of two in one round one counts. */
  readonly collections: number;
}

const longMs = 2;
/** How many it makes when it is told to: it says what one takes. */
const collections = 20;
const tickMs = 1;
/** A round of less is idle: its own cost is 0.01 ms. */
const idleMs = 0.03;
const path = process.env.BENCH_PROBE;

/** clock_gettime(2), 3 is CLOCK_THREAD_CPUTIME_ID: getrusage(2) counts in ticks of 4 ms here. */
const libc = dlopen("libc.so.6", {
  clock_gettime: { args: [FFIType.i32, FFIType.ptr], returns: FFIType.i32 },
});
/** A timespec: two of 64 bits, of which the lower halves say it all. Not as bigints, which would be garbage in every round. */
const time = new Uint32Array(4);

function threadMs(): number {
  libc.symbols.clock_gettime(3, ptr(time));
  return (time[0] ?? 0) * 1000 + (time[2] ?? 0) / 1e6;
}

function none(): { -readonly [Key in keyof Held]: Held[Key] } {
  return { clock: 0, thread: 0, uncollected: 0, collected: 0, long: 0, longCollected: 0, collections: 0 };
}

/** Garbage from the round after it was made on: gone as soon as a collection has ended. */
let canary = new WeakRef({});

function isCollected(): boolean {
  if (canary.deref() !== undefined) return false;
  canary = new WeakRef({});
  return true;
}

if (path !== undefined && Bun.isMainThread) {
  let longest = none();
  let [lastClock, lastThread] = [performance.now(), threadMs()];
  let isBusy = false;
  const look = () => {
    const [clock, thread] = [performance.now(), threadMs()];
    const held = thread - lastThread;
    const isLong = held > longMs;
    // A round that waited for the timer was not held for as long.
    longest.clock = Math.max(longest.clock, clock - lastClock - (isBusy ? 0 : tickMs));
    longest.thread = Math.max(longest.thread, held);
    if (isLong) longest.long += 1;
    if (isCollected()) {
      longest.collections += 1;
      longest.collected = Math.max(longest.collected, held);
      if (isLong) longest.longCollected += 1;
    } else longest.uncollected = Math.max(longest.uncollected, held);
    [lastClock, lastThread] = [clock, thread];
    isBusy = held > idleMs;
    if (isBusy) setImmediate(look);
  };
  setInterval(() => {
    if (!isBusy) look();
  }, tickMs).unref();
  const write = (held: Held) => {
    writeFileSync(`${path}.new`, JSON.stringify(held));
    renameSync(`${path}.new`, path);
    longest = none();
  };
  process.on("SIGUSR2", () => write(longest));
  process.on("SIGWINCH", () => {
    const begin = threadMs();
    for (let count = 0; count < collections; count++) edenGC();
    write({ ...none(), thread: (threadMs() - begin) / collections, collections });
  });
}
