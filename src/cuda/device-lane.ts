/**
 * The Worker in which the server's calls of a device's driver run, one after another. A driver that does not answer holds up nobody but
 * those who wait for it, and they are told after a while; what it does later is undone.
 */

import { closeSync } from "node:fs";
import { TensordError } from "../memory/error.ts";
import { limits } from "../memory/limits.ts";
import { Lane, WorkerQueue } from "../memory/storage/lane.ts";
import type { DeviceJob, DeviceReply, DriverLook, DriverRefusal, UsableDevice } from "./device-calls.ts";
import { NoDriver } from "./driver-error.ts";
import { tooLate, toRefused } from "./refusal.ts";

/** A refusal on its way to whoever asked. `DeviceLane` makes a failure of the table of it. */
class RefusedByDriver extends Error {
  readonly refusal: DriverRefusal;

  constructor(refusal: DriverRefusal) {
    super(refusal.message);
    this.refusal = refusal;
  }
}

export interface LaneOptions {
  /** How long who asks waits for an answer. */
  readonly answerMs?: number | undefined;
  /** Calls `giveUp` when that time is over, unless it is disposed of before. In place of a timer; tests say when. */
  readonly patience?: ((giveUp: () => void) => Disposable) | undefined;
}

/** What regions on a device are made with. */
export interface DeviceDriver extends Disposable {
  /**
   * Allocates memory on a device. @returns the driver's handle of it, which the caller releases.
   * @throws TensordError `out-of-device-memory`, `out-of-descriptors`, `io-error`, `deadline-exceeded`, or as `signal` says.
   */
  create(device: UsableDevice, byteSize: number, signal: AbortSignal): Promise<bigint>;
  /** A descriptor of the memory, the caller's to close. @throws TensordError as `create`. */
  export(uuid: string, handle: bigint): Promise<number>;
  /** Resolves once the driver has let go, however long that takes. @throws TensordError. */
  release(uuid: string, handle: bigint): Promise<void>;
  /** As `release`, by the last descriptor: no driver's library is asked, so one that hangs holds up none. */
  close(fd: number): Promise<void>;
  /**
   * Waits for `work`, which goes on alone if that takes too long.
   * @throws what it fails with, or TensordError `deadline-exceeded`.
   */
  within<Value>(what: string, work: Promise<Value>): Promise<Value>;
}

export class DeviceLane implements DeviceDriver {
  readonly #queue = new WorkerQueue<DeviceJob, DeviceReply>({
    start: () => new Worker(new URL("./device.worker.ts", import.meta.url).href),
    transfers: () => [],
    read: (reply) => {
      if (reply.ok) return reply.value;
      if ("refusal" in reply) throw new RefusedByDriver(reply.refusal);
      throw reply.noDriver === undefined ? new Error(reply.reason) : new NoDriver(reply.noDriver, reply.reason);
    },
  });
  /** The last descriptor of memory frees it, and takes its time. */
  readonly #closing = new Lane();
  readonly #answerMs: number;
  /** Ends what is waited for. */
  readonly #ending = new AbortController();

  readonly #patience: (giveUp: () => void) => Disposable;
  /** The first job: those behind it may hang. */
  readonly #started: Promise<unknown>;

  constructor({ answerMs = limits.driverAnswerMs, patience = toPatience(answerMs) }: LaneOptions = {}) {
    this.#answerMs = answerMs;
    this.#patience = patience;
    this.#started = this.#queue.run({ kind: "start" });
  }

  /** Brings the Workers up. Nothing is asked of the driver for that. */
  async start(): Promise<void> {
    await Promise.all([this.#closing.start(), this.#started]);
  }

  /**
   * All devices, however long the driver takes to tell of them.
   * @throws NoDriver if there is none to tell, Error with what the driver says, TensordError `shutting-down`.
   */
  look(): Promise<DriverLook> {
    const looking = this.#queue.run({ kind: "look" });
    return this.#within("look for devices", looking, undefined, undefined, endless) as Promise<DriverLook>;
  }

  async create({ uuid, ordinal }: UsableDevice, byteSize: number, signal: AbortSignal): Promise<bigint> {
    signal.throwIfAborted();
    const creating = this.#queue.run({ kind: "create", ordinal, byteSize }) as Promise<bigint>;
    const undo = (handle: bigint) => void this.#queue.run({ kind: "release", handle }).catch(() => {});
    const what = `allocate ${byteSize} bytes on device ${uuid}`;
    try {
      return await this.#within(what, creating, undo, signal);
    } catch (error) {
      throw toFailure(error, what, byteSize);
    }
  }

  async export(uuid: string, handle: bigint): Promise<number> {
    const exporting = this.#queue.run({ kind: "export", handle }) as Promise<number>;
    const what = `hand out memory of device ${uuid}`;
    try {
      return await this.#within(what, exporting, closeSync);
    } catch (error) {
      throw toFailure(error, what, 0);
    }
  }

  async release(uuid: string, handle: bigint): Promise<void> {
    try {
      await this.#queue.run({ kind: "release", handle });
    } catch (error) {
      throw toFailure(error, `free memory of device ${uuid}`, 0);
    }
  }

  async close(fd: number): Promise<void> {
    await this.#closing.run({ kind: "close", fd });
  }

  async within<Value>(what: string, work: Promise<Value>): Promise<Value> {
    return await this.#within(what, work);
  }

  async #within<Value>(
    what: string,
    work: Promise<Value>,
    undo: (value: Value) => void = () => {},
    signal?: AbortSignal,
    patience = this.#patience,
  ): Promise<Value> {
    const { promise: given, reject: giveUp } = Promise.withResolvers<never>();
    const stop = signal === undefined ? this.#ending.signal : AbortSignal.any([signal, this.#ending.signal]);
    const onAbort = () => giveUp(stop.reason);
    if (stop.aborted) onAbort();
    stop.addEventListener("abort", onAbort);
    using _ = patience(() => giveUp(tooLate(what, this.#answerMs)));
    let isGivenUp = false;
    work.then(
      (value) => isGivenUp && undo(value),
      () => {},
    );
    try {
      return await Promise.race([work, given]);
    } catch (error) {
      isGivenUp = true;
      throw error;
    } finally {
      stop.removeEventListener("abort", onAbort);
    }
  }

  /** Who waits still is told that the server stops. The driver's handles end with the process. */
  [Symbol.dispose](): void {
    this.#ending.abort(
      new TensordError("shutting-down", "Cannot wait for the device's driver: the server is shutting down", {
        hint: "Ask again when the server is back.",
      }),
    );
    this.#queue[Symbol.dispose]();
    this.#closing[Symbol.dispose]();
  }
}

/** For what may take as long as it likes. */
const endless = () => ({ [Symbol.dispose]: () => {} });

function toPatience(answerMs: number) {
  return function patience(giveUp: () => void): Disposable {
    const timer = setTimeout(giveUp, answerMs);
    return { [Symbol.dispose]: () => clearTimeout(timer) };
  };
}

/** The failure of the table for what came of a job. */
function toFailure(error: unknown, what: string, requestedBytes: number): unknown {
  if (error instanceof TensordError) return error;
  if (!(error instanceof RefusedByDriver)) {
    return new TensordError(
      "io-error",
      `Cannot ${what}: ${(error as Error).message}`,
      { hint: "See the server's log." },
      { cause: error },
    );
  }
  return toRefused(error.refusal, what, requestedBytes > 0 ? requestedBytes : null, error);
}
