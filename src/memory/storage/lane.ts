/**
 * Work that would hold the event loop for more than a millisecond, done in a Worker, one job after another. A caller
 * that has much to do sends it in windows, so that others get their turn and it can stop between two of them.
 */

import { SystemError } from "../error.ts";
import type { PageAdvice } from "../os/libc-files.ts";

export type Job =
  | { readonly kind: "allocate"; readonly fd: number; readonly byteOffset: number; readonly byteSize: number }
  | { readonly kind: "hash"; readonly fd: number; readonly byteOffset: number; readonly byteSize: number }
  | {
      readonly kind: "copy";
      readonly fd: number;
      readonly byteOffset: number;
      readonly byteSize: number;
      readonly toFd: number;
      readonly toOffset: number;
      /** Of a file that takes no pwrite(2), its pages; else undefined. */
      readonly mappedPageBytes: number | undefined;
      /** Whether the kernel need not keep its copy of what was read. */
      readonly dropsRead: boolean;
    }
  | {
      readonly kind: "compare";
      readonly fd: number;
      readonly byteOffset: number;
      readonly byteSize: number;
      readonly otherFd: number;
      readonly otherOffset: number;
      /** As of a copy. */
      readonly dropsRead: boolean;
    }
  | {
      readonly kind: "advise";
      readonly fd: number;
      readonly byteOffset: number;
      readonly byteSize: number;
      readonly advice: PageAdvice;
    }
  | {
      readonly kind: "resident";
      readonly fd: number;
      readonly byteOffset: number;
      readonly byteSize: number;
      readonly pageBytes: number;
    }
  | { readonly kind: "start" }
  | { readonly kind: "close"; readonly fd: number }
  | { readonly kind: "seal"; readonly fd: number }
  | { readonly kind: "cut"; readonly fd: number; readonly byteSize: number }
  | { readonly kind: "unlink"; readonly path: string };

/** What a Worker answers: `value` is the hash of what a `hash` or `copy` job read, 1 of a `compare` of equal bytes, how many are `resident`, else 0. */
export type JobReply =
  | { readonly ok: true; readonly value: bigint }
  | { readonly ok: false; readonly call: string; readonly errno: number; readonly code: string };

/** A Worker that answers each job with one reply. */
export interface LaneWorker<Task, Reply> {
  readonly start: () => Worker;
  /** Memory that goes over with a job, instead of a copy of it. */
  readonly transfers: (job: Task) => ArrayBuffer[];
  /** @throws what the job failed with. */
  readonly read: (reply: Reply) => unknown;
}

interface PendingJob<Task> {
  readonly job: Task;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

/** One Worker and its queue, first come first served. Bounded by its callers: each awaits one job at a time. */
export class WorkerQueue<Task, Reply> implements Disposable {
  readonly #kind: LaneWorker<Task, Reply>;
  readonly #queue: PendingJob<Task>[] = [];
  #worker: Worker | undefined;
  #running: PendingJob<Task> | undefined;

  constructor(kind: LaneWorker<Task, Reply>) {
    this.#kind = kind;
  }

  /**
   * Runs `job` in the Worker and resolves when it is done.
   * @throws what the job failed with, Error if the Worker died.
   */
  run(job: Task): Promise<unknown> {
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
    this.#worker.postMessage(this.#running.job, this.#kind.transfers(this.#running.job));
  }

  #start(): Worker {
    const worker = this.#kind.start();
    worker.unref();
    worker.onmessage = (event: MessageEvent<Reply>) => {
      this.#settle((job) => {
        try {
          job.resolve(this.#kind.read(event.data));
        } catch (error) {
          job.reject(error);
        }
      });
    };
    worker.onerror = (event) => {
      this.#worker = undefined;
      this.#settle((job) => job.reject(new Error(`a background Worker died: ${event.message}`)));
    };
    return worker;
  }

  #settle(settle: (job: PendingJob<Task>) => void): void {
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

/** What blocks: pages, hashes, seals, and the last unlink or close. */
export class Lane implements Disposable {
  readonly #queue = new WorkerQueue<Job, JobReply>({
    start: () => new Worker(new URL("./lane.worker.ts", import.meta.url).href),
    transfers: () => [],
    read: (reply) => {
      if (reply.ok) return reply.value;
      throw new SystemError(reply.call, reply.errno, reply.code);
    },
  });

  /** Brings the Worker up. Without it the first job does, which takes descriptors and time. */
  async start(): Promise<void> {
    await this.run({ kind: "start" });
  }

  /** @throws SystemError if its call failed, Error if the Worker died. */
  run(job: Job): Promise<bigint> {
    return this.#queue.run(job) as Promise<bigint>;
  }

  [Symbol.dispose](): void {
    this.#queue[Symbol.dispose]();
  }
}

/** The lanes that all storages of host memory share. */
export class HostLanes implements Disposable {
  /** For pages, hashes and seals. */
  readonly filling = new Lane();
  /** Freeing has a lane of its own: a large file goes in one piece, and would hold up every allocation. */
  readonly freeing = new Lane();

  async start(): Promise<void> {
    await Promise.all([this.filling.start(), this.freeing.start()]);
  }

  [Symbol.dispose](): void {
    this.filling[Symbol.dispose]();
    this.freeing[Symbol.dispose]();
  }
}
