/** Operations: long work of the server that this process follows, waits for and cancels. */

import { randomUUID } from "node:crypto";
import { inspect } from "node:util";
import { checkOptions } from "../check/options.ts";
import * as tables from "../check/tables.ts";
import { fromProblem, TensordError } from "../errors.ts";
import type { Api, NewCopy } from "../http/api.ts";
import { type OperationDescriptor, type RegionDescriptor, toWire, type WireObject } from "../http/wire.ts";
import { type CopyOptions, defaultModel, type OperationWaitOptions, type Owner } from "../options.ts";
import { deadlineAfter, pause, type WaitOptions } from "../waiting.ts";
import type { Asker } from "./asker.ts";
import { toOwner } from "./owner.ts";

/** How often progress is told, and how long one answer is waited for at most. */
const progressMs = 1000;
const answerMs = 60_000;
/** The server holds an answer back by whole seconds. */
const pollMs = 50;

/**
 * Long work of the server, such as a copy. It goes on whatever becomes of this process, until it has ended or is cancelled; what has
 * ended is told of for ten minutes. Made by `client.copy` and by `pool.unmap`, listed by `client.operations`.
 */
export class Operation<Result extends RegionDescriptor | undefined = RegionDescriptor | undefined> {
  readonly #api: Api;
  #descriptor: OperationDescriptor;

  constructor(api: Api, descriptor: OperationDescriptor) {
    this.#api = api;
    this.#descriptor = descriptor;
  }

  get id(): string {
    return this.#descriptor.id;
  }

  /** What the server said when it was last asked. */
  get descriptor(): OperationDescriptor {
    return this.#descriptor;
  }

  /** `running`, `succeeded`, `failed` or `cancelled`, when the server was last asked. */
  get state(): string {
    return this.#descriptor.state;
  }

  get doneBytes(): number {
    return this.#descriptor.doneBytes;
  }

  /** All that it reads and writes: a copy is written once, and read back. Of pages that are unmapped, their bytes. */
  get totalBytes(): number {
    return this.#descriptor.totalBytes;
  }

  /** What it failed with, or that it was cancelled. */
  get error(): TensordError | undefined {
    const { problem } = this.#descriptor;
    return problem === null ? undefined : fromProblem(problem.status, toWire(problem) as WireObject);
  }

  /** Asks the server for it as it is now. @throws TensordError `operation-not-found` */
  async refresh(options: WaitOptions = {}): Promise<OperationDescriptor> {
    checkOptions("ask for an operation", tables.wait, options);
    this.#descriptor = await this.#api.operation(this.id, options);
    return this.#descriptor;
  }

  /**
   * Waits until it has ended. After an abort, or when the time is over, it goes on.
   * @returns the region that it led to; undefined of what leads to none, such as pages that are unmapped
   * @throws TensordError what it failed with; `cancelled`; `deadline-exceeded`; `operation-not-found` if the server that did it is gone
   */
  async wait(options: OperationWaitOptions = {}): Promise<Result> {
    checkOptions("wait for an operation", tables.operationWait, options);
    const { timeoutMs = Number.POSITIVE_INFINITY, onProgress, signal } = options;
    const deadline = deadlineAfter(timeoutMs);
    const stepMs = onProgress === undefined ? answerMs : progressMs;
    while (this.#descriptor.endedAt === null) {
      const askedAt = performance.now();
      this.#descriptor = await this.#api.operation(this.id, {
        signal,
        waitUntil: Math.min(deadline, askedAt + stepMs),
      });
      onProgress?.(this.doneBytes, this.totalBytes);
      if (this.#descriptor.endedAt !== null) break;
      if (performance.now() >= deadline) throw this.#late(timeoutMs);
      if (performance.now() - askedAt < pollMs) await pause(Math.min(pollMs, deadline - performance.now()), { signal });
    }
    if (this.error !== undefined) throw this.error;
    const { region } = this.#descriptor;
    return (region === null ? undefined : await this.#api.region(region, signal)) as Result;
  }

  #late(timeoutMs: number): TensordError {
    const done = `${this.doneBytes} of ${this.totalBytes} bytes are done`;
    return new TensordError(
      "deadline-exceeded",
      `Cannot wait for ${this.id} to its end: after ${timeoutMs} ms ${done}`,
      {
        hint: "it goes on: wait again, or cancel it",
      },
    );
  }

  /**
   * Cancels it, and resolves when nothing of it goes on. One that has ended stays as it ended.
   * @throws TensordError `operation-not-found`, `forbidden`
   */
  async cancel(options: WaitOptions = {}): Promise<OperationDescriptor> {
    checkOptions("cancel an operation", tables.wait, options);
    this.#descriptor = await this.#api.cancelOperation(this.id, options.signal);
    return this.#descriptor;
  }

  /** As `console.log` shows it. */
  [inspect.custom](): string {
    const { id, kind, source, state, doneBytes, totalBytes } = this.#descriptor;
    return `Operation ${id}, ${kind} of ${source}, ${state}, ${doneBytes} of ${totalBytes} bytes`;
  }
}

/** Begins a copy of the region `source`, owned by the session if no owner is said. */
export async function startCopy(
  { api, session }: Asker,
  source: string,
  options: CopyOptions,
): Promise<Operation<RegionDescriptor>> {
  const { model = defaultModel, name, private: isPrivate, device, ifExists = "fail", signal } = options;
  const { version, storage, hugePages, evictable, onFull, deadlineMs, labels } = options;
  if (device !== undefined && (storage !== undefined || isPrivate === true || hugePages !== undefined)) {
    throw new TensordError(
      "validation-failed",
      `Cannot copy a region to ${device}: storage, private and hugePages are of host memory`,
      { hint: "leave them out" },
    );
  }
  const owner = toOwner(options);
  const key = randomUUID();
  const copy = (end: Owner | Pick<NewCopy, "session">) =>
    api.copyRegion(
      source,
      {
        model,
        name: name ?? undefined,
        version,
        storage: device === undefined ? storage : "cuda_vmm",
        deviceUuid: device,
        private: isPrivate,
        hugePages,
        ifExists,
        evictable,
        onFull,
        deadlineMs,
        labels,
        key,
        ...end,
      },
      signal,
    );
  const isOwned = Object.values(owner).some((value) => value !== undefined);
  const begun =
    session === undefined || isOwned ? await copy(owner) : await session.use((id) => copy({ session: id }), signal);
  return new Operation(api, begun);
}
