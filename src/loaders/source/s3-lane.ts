/**
 * Objects of an S3 service as the event loop has them: opened and brought into a region's file by a Worker. Of the signatures and of what
 * they are made with nothing comes back.
 */

import { Tensors } from "../../memory/layout/tensors.ts";
import type { ObjectLane, OpenedFile, WantedFormat } from "../file-lane.ts";
import { readReply } from "../worker-reply.ts";
import { bringBy, compareBy } from "./s3-fill.ts";
import type { FillJob, OpenedObjects, S3Job, S3Reply, S3Request } from "./s3-job.ts";
import type { S3Options } from "./s3-options.ts";
import { type S3Object, toS3Uri } from "./s3-uri.ts";

interface Pending {
  readonly onBytes: (byteSize: number) => void;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

export class S3Lane implements ObjectLane {
  readonly #options: S3Options;
  readonly #pending = new Map<number, Pending>();
  #worker: Worker | undefined;
  #started: Promise<unknown> | undefined;
  #lastId = 0;

  constructor(options: S3Options) {
    this.#options = options;
  }

  /** Brings the Worker up. Without it the first job does, which takes descriptors and time. */
  async start(): Promise<void> {
    this.#started ??= this.#send({ kind: "start", options: this.#options }, () => {});
    await this.#started;
  }

  /**
   * Opens an object, or all of a sharded model, and reads its header. There is nothing to close.
   * @throws TensordError `invalid-model-file`, `unsupported-format`, `io-error`, `source-unavailable`; `signal.reason`.
   */
  async open(object: S3Object, format: WantedFormat, signal: AbortSignal): Promise<OpenedFile> {
    const { bucket, key } = object;
    const job = { kind: "open", object: { bucket, key }, format } as const;
    const opened = (await this.#run(job, () => {}, signal)) as OpenedObjects;
    const run = async (fill: FillJob, onBytes: (byteSize: number) => void, stop: AbortSignal) => {
      return (await this.#run(fill, onBytes, stop)) as boolean;
    };
    const content = { ...opened, path: toS3Uri(object) };
    const { objects: _, layout, ...rest } = opened;
    const { count, bytes, ...laidOut } = layout;
    const list = Tensors.written(count, bytes);
    return {
      ...rest,
      files: [],
      standing: null,
      layout: { ...laidOut, list },
      bring: bringBy(run, content),
      compare: compareBy(run, content),
    };
  }

  async #run(job: S3Job, onBytes: (byteSize: number) => void, signal: AbortSignal): Promise<unknown> {
    await this.start();
    signal.throwIfAborted();
    const id = this.#lastId + 1;
    const cancel = () => this.#post({ id, job: undefined });
    signal.addEventListener("abort", cancel);
    try {
      return await this.#send(job, onBytes);
    } catch (error) {
      signal.throwIfAborted();
      throw error;
    } finally {
      signal.removeEventListener("abort", cancel);
    }
  }

  #send(job: S3Job, onBytes: (byteSize: number) => void): Promise<unknown> {
    this.#lastId += 1;
    const id = this.#lastId;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { onBytes, resolve, reject });
      this.#post({ id, job });
    });
  }

  #post(request: S3Request): void {
    this.#worker ??= this.#startWorker();
    this.#worker.postMessage(request);
  }

  #startWorker(): Worker {
    const worker = new Worker(new URL("./s3.worker.ts", import.meta.url).href);
    worker.unref();
    worker.onmessage = ({ data }: MessageEvent<S3Reply>) => this.#settle(data);
    worker.onerror = (event) => {
      this.#worker = undefined;
      this.#started = undefined;
      const error = new Error(`a background Worker died: ${event.message}`);
      for (const { reject } of this.#pending.values()) reject(error);
      this.#pending.clear();
    };
    return worker;
  }

  #settle(data: S3Reply): void {
    const pending = this.#pending.get(data.id);
    // What a Worker had said before it died is nobody's any longer.
    if (pending === undefined) return;
    if ("doneBytes" in data) {
      pending.onBytes(data.doneBytes);
      return;
    }
    this.#pending.delete(data.id);
    try {
      pending.resolve(readReply(data.reply));
    } catch (error) {
      pending.reject(error);
    }
  }

  [Symbol.dispose](): void {
    this.#worker?.terminate();
    this.#worker = undefined;
  }
}
