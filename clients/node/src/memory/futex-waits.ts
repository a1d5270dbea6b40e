/**
 * Waits at words in shared memory without holding this thread: one Worker sleeps for all of them (`waiting-thread.ts`). `koffi.async` would
 * hold one of the runtime's four threads for each, and delay the end of the process. Whoever waits keeps the process alive meanwhile;
 * the Worker does not.
 */

import { Worker } from "node:worker_threads";
import { resolveKoffi } from "../packages.ts";
import { futexCall, wakeAll } from "./futex.ts";
import { MAP_ANONYMOUS, MAP_PRIVATE, mmap, PROT_READ, PROT_WRITE, viewAt } from "./libc.ts";
import { unmapAtThreadEnd } from "./thread-end.ts";
import { maxWords, pageBytes, place, program, type ThreadData } from "./waiting-thread.ts";

/** The longest wait: at its end whoever waits looks whether the other side lives. */
export const sliceMs = 100;
/** How often to look without the Worker: while it starts, where there is none, and for more words than it takes. */
const lookMs = 2;

interface Pending {
  readonly address: bigint;
  readonly seen: number;
  /** As `performance.now()` counts. */
  readonly until: number;
  readonly resolve: () => void;
}

class Waits {
  readonly #page: bigint;
  readonly #words: Int32Array;
  readonly #pending = new Set<Pending>();
  #worker: Worker | undefined;
  #isOnline = false;
  #isPlanned = false;
  #timer: NodeJS.Timeout | undefined;

  constructor() {
    this.#page = mmap(0n, pageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    this.#words = new Int32Array(viewAt(this.#page, pageBytes));
    Atomics.store(this.#words, place.isIdle, 1);
    // Node ends a thread's own threads first.
    if (process.versions.bun === undefined) unmapAtThreadEnd(this.#page, pageBytes);
    this.#start();
  }

  wait(address: bigint, seen: number, ms: number, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve) => {
      const pending = { address, seen, until: performance.now() + Math.min(ms, sliceMs), resolve: () => over() };
      const over = () => {
        this.#pending.delete(pending);
        signal?.removeEventListener("abort", over);
        if (this.#pending.size === 0) this.#worker?.unref();
        resolve();
      };
      signal?.addEventListener("abort", over, { once: true });
      this.#pending.add(pending);
      this.#plan();
    });
  }

  #start(): void {
    try {
      const workerData: ThreadData = { koffi: resolveKoffi(), page: this.#page, futexCall: futexCall() };
      // It is a script whatever this program is, and has no use of what this process was started with.
      const execArgv = ["--input-type=commonjs"];
      const worker = new Worker(program, { eval: true, workerData, execArgv, env: {}, stdin: false });
      worker.unref();
      worker.on("message", () => this.#settle());
      worker.on("online", () => {
        this.#isOnline = true;
        this.#settle();
      });
      // Where there can be none it is done without.
      worker.on("error", () => this.#lose());
      worker.on("exit", () => this.#lose());
      this.#worker = worker;
      process.on("exit", () => {
        Atomics.store(this.#words, place.isOver, 1);
        Atomics.add(this.#words, place.version, 2);
        wakeAll(this.#page);
      });
    } catch {
      this.#lose();
    }
  }

  #lose(): void {
    this.#worker = undefined;
    this.#isOnline = false;
    this.#settle();
  }

  /** Everybody looks, and waits again if there was nothing. */
  #settle(): void {
    for (const { resolve } of [...this.#pending]) resolve();
  }

  /** Once for all who begin to wait in this turn. */
  #plan(): void {
    if (this.#isPlanned) return;
    this.#isPlanned = true;
    queueMicrotask(() => {
      this.#isPlanned = false;
      this.#arm();
    });
  }

  #arm(): void {
    if (this.#pending.size === 0) return;
    if (!this.#isOnline || this.#pending.size > maxWords) {
      this.#timer ??= setTimeout(() => {
        this.#timer = undefined;
        this.#settle();
      }, lookMs);
      if (!this.#isOnline) return;
    }
    const words = this.#words;
    Atomics.add(words, place.version, 1);
    let count = 0;
    let until = Number.POSITIVE_INFINITY;
    for (const pending of this.#pending) {
      if (count === maxWords) break;
      const at = place.first + place.each * count;
      words[at] = Number(BigInt.asIntN(32, pending.address));
      words[at + 1] = Number(BigInt.asIntN(32, pending.address >> 32n));
      words[at + 2] = pending.seen;
      until = Math.min(until, pending.until);
      count += 1;
    }
    words[place.count] = count;
    words[place.sliceMs] = Math.max(0, Math.ceil(until - performance.now()));
    Atomics.add(words, place.version, 1);
    this.#worker?.ref();
    if (Atomics.exchange(words, place.isIdle, 0) === 1) this.#worker?.postMessage(null);
    else wakeAll(this.#page);
  }
}

let waits: Waits | undefined;

/**
 * Waits until the word at `address` is another than `seen`, or is woken, or `ms` are over, at most `sliceMs`; or for less: who waits
 * looks, and waits again. Ends with the signal too, and does not throw.
 */
export function waitAt(address: bigint, seen: number, ms: number, signal?: AbortSignal | undefined): Promise<void> {
  waits ??= new Waits();
  return waits.wait(address, seen, ms, signal);
}
