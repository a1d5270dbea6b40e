/**
 * The program of the thread that waits at words for this one, as text: it must be in a bundle, and load nothing of it. It sleeps in
 * futex_waitv(2) and tells whenever it comes out. It never looks at the words itself, which may be unmapped meanwhile: the kernel compares.
 */

/** Where in the page that both threads see is what, in words of 4 bytes. */
export const place = {
  /** Odd while the page is written. Another one means: read it anew. */
  version: 0,
  count: 1,
  /** How long to wait at most, in ms. */
  sliceMs: 2,
  /** Not 0 while the thread waits for a message. */
  isIdle: 3,
  isOver: 4,
  /** From here on, of each word its address in two, and the value that was seen there. */
  first: 16,
  each: 3,
} as const;

export const pageBytes = 4096;
/** futex_waitv takes 128, of which one is the page's own. */
export const maxWords = 127;

/** What it is started with. */
export interface ThreadData {
  /** Where koffi was found. */
  readonly koffi: string;
  readonly page: bigint;
  readonly futexCall: number;
}

export const program = `"use strict";
const { parentPort, workerData: { koffi: path, page, futexCall } } = require("node:worker_threads");
const koffi = require(path);
const libc = koffi.load(null);
const waitv = libc.func("int64_t syscall(int64_t number, void *words, uint32_t count, uint32_t flags, void *until, int clock)");
const wait = libc.func("int64_t syscall(int64_t number, uint64_t address, int op, uint32_t value, void *timeout, uint64_t second, uint32_t last)");
const clock_gettime = libc.func("int clock_gettime(int clock, void *time)");
const SYS_futex_waitv = 449, FUTEX_WAIT = 0, FUTEX2_SIZE_U32 = 2, CLOCK_MONOTONIC = 1, wordBytes = 24;
const words = new Int32Array(koffi.view(page, ${pageBytes}));
const waiters = Buffer.alloc(wordBytes * ${maxWords + 1});
const time = Buffer.alloc(16);
let isThere = true;
const setWaiter = (index, address, value) => {
  const at = wordBytes * index;
  waiters.writeBigUInt64LE(BigInt(value >>> 0), at);
  waiters.writeBigUInt64LE(address, at + 8);
  waiters.writeUInt32LE(FUTEX2_SIZE_U32, at + 16);
};
const toTime = (nanoseconds) => {
  time.writeBigInt64LE(nanoseconds / 1000000000n, 0);
  time.writeBigInt64LE(nanoseconds % 1000000000n, 8);
  return time;
};
/** Until one of the first words is another than was seen, or is rung, or so many ms are over. */
const sleep = (count, ms) => {
  if (isThere) {
    clock_gettime(CLOCK_MONOTONIC, time);
    const now = time.readBigInt64LE(0) * 1000000000n + time.readBigInt64LE(8);
    const result = Number(waitv(SYS_futex_waitv, waiters, count, 0, toTime(now + BigInt(Math.ceil(ms * 1e6))), CLOCK_MONOTONIC));
    if (result >= 0) return;
    const errno = koffi.errno();
    if (errno !== koffi.os.errno.ENOSYS && errno !== koffi.os.errno.EPERM) return;
    isThere = false;
  }
  // Before Linux 5.16, or where a sandbox knows no such call: at one of them, and never for long.
  const last = wordBytes * (count - 1);
  const shortMs = count <= 2 ? Math.min(ms, 10) : 1;
  const address = waiters.readBigUInt64LE(last + 8);
  wait(futexCall, address, FUTEX_WAIT, Number(waiters.readBigUInt64LE(last)), toTime(BigInt(Math.ceil(shortMs * 1e6))), 0n, 0);
};
const run = () => {
  while (Atomics.load(words, ${place.isOver}) === 0) {
    const version = Atomics.load(words, ${place.version});
    if ((version & 1) !== 0) continue;
    const count = Math.min(words[${place.count}], ${maxWords});
    const sliceMs = words[${place.sliceMs}];
    for (let index = 0; index < count; index++) {
      const at = ${place.first} + ${place.each} * index;
      const address = BigInt(words[at] >>> 0) | (BigInt(words[at + 1] >>> 0) << 32n);
      setWaiter(index + 1, address, words[at + 2]);
    }
    setWaiter(0, page, version);
    if (Atomics.load(words, ${place.version}) !== version) continue;
    sleep(count + 1, sliceMs);
    if (Atomics.load(words, ${place.version}) !== version) continue;
    parentPort.postMessage(version);
    // Whoever was told says what comes next, soon as a rule.
    sleep(1, 100);
    if (Atomics.load(words, ${place.version}) !== version) continue;
    Atomics.store(words, ${place.isIdle}, 1);
    if (Atomics.load(words, ${place.version}) === version) return;
    Atomics.store(words, ${place.isIdle}, 0);
  }
};
parentPort.on("message", run);
`;
