/**
 * Work that would hold the event loop for more than a millisecond, done in a Worker, one job after another. A caller
 * that has much to do sends it in windows, so that others get their turn and it can stop between two of them.
 */

import { SystemError } from "../error.ts";

export type Job =
  | { readonly kind: "allocate"; readonly fd: number; readonly byteOffset: number; readonly byteSize: number }
  | { readonly kind: "hash"; readonly fd: number; readonly byteOffset: number; readonly byteSize: number }
  | { readonly kind: "start" }
  | { readonly kind: "unlink"; readonly path: string };

/** What a Worker answers: `value` is the hash of a `hash` job, else 0. */
export type JobReply =
  | { readonly ok: true; readonly value: bigint }
  | { readonly ok: false; readonly call: string; readonly errno: number; readonly code: string };

interface PendingJob {
  readonly job: Job;
  readonly resolve: (value: bigint) => void;
  readonly reject: (error: Error) => void;
}

/** One Worker and its queue, first come first served. Bounded by its callers: each awaits one job at a time. */
export class Lane implements Disposable {
  readonly #queue: PendingJob[] = [];
  #worker: Worker | undefined;
  #running: PendingJob | undefined;

  /** Brings the Worker up. Without it the first job does, which takes descriptors and time. */
  async start(): Promise<void> {
    await this.run({ kind: "start" });
  }

  /**
   * Runs `job` in the Worker and resolves when it is done.
   * @throws SystemError if its call failed, Error if the Worker died.
   */
  run(job: Job): Promise<bigint> {
    return new Promise((resolve, reject) => {
      this.#queue.push({ job, resolve, reject });
      this.#next();
    });
  }

  #next(): void {
    if (this.#running !== undefined) return;
    this.#running = this.#queue.shift();
    if (this.#running === undefined) return;
    this.#worker ??= this.#start();
    this.#worker.postMessage(this.#running.job);
  }

  #start(): Worker {
    const worker = new Worker(new URL("./lane.worker.ts", import.meta.url).href);
    worker.unref();
    worker.onmessage = (event: MessageEvent<JobReply>) => {
      const reply = event.data;
      this.#settle((job) => {
        if (reply.ok) job.resolve(reply.value);
        else job.reject(new SystemError(reply.call, reply.errno, reply.code));
      });
    };
    worker.onerror = (event) => {
      this.#worker = undefined;
      this.#settle((job) => job.reject(new Error(`a background Worker died: ${event.message}`)));
    };
    return worker;
  }

  #settle(settle: (job: PendingJob) => void): void {
    const job = this.#running;
    this.#running = undefined;
    if (job !== undefined) settle(job);
    this.#next();
  }

  [Symbol.dispose](): void {
    this.#worker?.terminate();
    this.#worker = undefined;
  }
}
