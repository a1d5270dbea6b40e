/** Has the host's facts gathered in a Worker. A server keeps one, since a Worker needs descriptors and time to come up. */

import { isOutOfDescriptors } from "../os/descriptors.ts";
import type { HostFacts, Question } from "./facts.ts";
import type { GatherReply } from "./gather.worker.ts";
import { thresholds } from "./thresholds.ts";

export class Gatherer implements Disposable {
  #kept: Worker | undefined;

  /** Brings up the Worker that is kept until disposed. Without it each question starts its own. */
  async start(): Promise<void> {
    this.#kept = startWorker();
    await ask(this.#kept, null);
  }

  /** One at a time. @throws what the system says if no descriptor is free, Error if the Worker died or takes too long. */
  async gather(question: Question): Promise<HostFacts> {
    const isKept = this.#kept !== undefined;
    const worker = this.#kept ?? startWorker();
    try {
      return (await ask(worker, question)) as HostFacts;
    } catch (error) {
      // What died, or is stuck, is not asked again.
      if (isKept && !isOutOfDescriptors(error)) this[Symbol.dispose]();
      throw error;
    } finally {
      if (!isKept) worker.terminate();
    }
  }

  [Symbol.dispose](): void {
    this.#kept?.terminate();
    this.#kept = undefined;
  }
}

function startWorker(): Worker {
  const worker = new Worker(new URL("./gather.worker.ts", import.meta.url).href);
  worker.unref();
  return worker;
}

async function ask(worker: Worker, question: Question | null): Promise<HostFacts | null> {
  const { promise, resolve, reject } = Promise.withResolvers<GatherReply>();
  const timer = setTimeout(() => reject(new Error("the host's facts took too long")), thresholds.gatherMs);
  worker.onmessage = (event: MessageEvent<GatherReply>) => resolve(event.data);
  worker.onerror = (event) => reject(new Error(`the Worker of a diagnosis died: ${event.message}`));
  worker.postMessage(question);
  try {
    const reply = await promise;
    if (reply.ok) return reply.facts;
    throw Object.assign(new Error(reply.message), { code: reply.code });
  } finally {
    clearTimeout(timer);
  }
}
