/** Asks NVML of devices, for whom it matters little: without an answer in time there is none, and one question is under way at most. */

import { limits } from "../memory/limits.ts";
import { WorkerQueue } from "../memory/storage/lane.ts";
import type { NvmlDevice, NvmlJob, NvmlReply } from "./nvml-calls.ts";

const none: ReadonlyMap<string, NvmlDevice> = new Map();

export class NvmlLane implements Disposable {
  readonly #queue = new WorkerQueue<NvmlJob, NvmlReply>({
    start: () => new Worker(new URL("./nvml.worker.ts", import.meta.url).href),
    transfers: () => [],
    read: (reply) => reply,
  });
  #asking: Promise<ReadonlyMap<string, NvmlDevice>> | undefined;
  /** Whether the question that is under way was given up: nobody waits for it a second time. */
  #isLate = false;

  /** Brings the Worker up. */
  async start(): Promise<void> {
    await this.#queue.run(null);
  }

  /** Empty if it is not here or does not answer in time. */
  async look(uuids: readonly string[]): Promise<ReadonlyMap<string, NvmlDevice>> {
    if (this.#isLate) return none;
    this.#asking ??= this.#look(uuids).finally(() => {
      this.#asking = undefined;
      this.#isLate = false;
    });
    const { promise: late, resolve } = Promise.withResolvers<ReadonlyMap<string, NvmlDevice>>();
    const timer = setTimeout(() => {
      this.#isLate = true;
      resolve(none);
    }, limits.nvmlAnswerMs);
    try {
      return await Promise.race([this.#asking, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  async #look(uuids: readonly string[]): Promise<ReadonlyMap<string, NvmlDevice>> {
    try {
      return new Map((await this.#queue.run(uuids)) as NvmlReply);
    } catch {
      return none;
    }
  }

  [Symbol.dispose](): void {
    this.#queue[Symbol.dispose]();
  }
}
