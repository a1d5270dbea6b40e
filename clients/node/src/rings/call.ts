/**
 * A request that this process has sent by its ring, until its result is read: the caller's side of an answer (docs/protocol.md, "The
 * bell"). `message.ts` is the other.
 */

import "../dispose.ts";
import { inspect } from "node:util";
import { checkOptions } from "../check/options.ts";
import * as tables from "../check/tables.ts";
import type { Dtype, TensorArray } from "../dtype.ts";
import { isTensordError, TensordError } from "../errors.ts";
import type { LockOptions } from "../options.ts";
import { deadlineAfter } from "../waiting.ts";
import { type AnswerRecord, failed } from "./answer-record.ts";
import type { RingFile } from "./ring-file.ts";
import { showArray, showBytes } from "./slot-view.ts";

const maxShownBytes = 4096;

/** What nobody closed is given up when the collector finds it, and the arrays that it gave. */
const dropped = new FinalizationRegistry<() => void>((giveUp) => giveUp());

/**
 * A request, and its answer; `ring.call` and `slot.call` make it. It has its slot until it is closed: the worker finds the request there,
 * and writes the result. Close it, or declare it with `using`; arrays that are kept longer show what comes into the slot next: copy what you
 * keep with `slice()`. Do not write into them.
 */
export class Call {
  readonly #file: RingFile;
  readonly #index: number;
  readonly #generation: number;
  readonly #giveUp: () => void;
  #answer: AnswerRecord | undefined;
  #isClosed = false;

  /** Takes over a slot that was sent. */
  constructor(file: RingFile, index: number, generation: number, giveUp: () => void) {
    this.#file = file;
    this.#index = index;
    this.#generation = generation;
    this.#giveUp = giveUp;
    dropped.register(this, giveUp, this);
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Whether it was answered, or never will be: `result` does not wait then. @throws TensordError `closed` */
  get isDone(): boolean {
    this.#check();
    return this.#file.bell.isAnswered(this.#index, this.#generation) || this.#isGivenUp();
  }

  /** The result's. @throws TensordError `validation-failed` before there is one */
  get dtype(): Dtype {
    return this.#answered().dtype;
  }

  /** The result's. @throws TensordError `validation-failed` before there is one */
  get shape(): readonly number[] {
    return this.#answered().shape;
  }

  /**
   * Waits for the result, and gives it: an array over the slot, of the type and shape that the worker chose. It stays until the call is
   * closed. A wait that ends without it may be repeated; it keeps the process alive.
   * @throws TensordError `deadline-exceeded`; `request-failed` if the worker said so, died or gave it up; `feature-unavailable` for what no
   *   typed array shows; `closed`
   */
  async result(options: LockOptions = {}): Promise<TensorArray> {
    const answer = await this.#wait(options);
    return this.#held(showArray(this.#file.bufferOf(this.#index, answer), answer.offset, answer, undefined));
  }

  /** As `result`, but the raw bytes, whatever the dtype. */
  async bytes(options: LockOptions = {}): Promise<Uint8Array<ArrayBuffer>> {
    const answer = await this.#wait(options);
    return this.#held(showBytes(this.#file.bufferOf(this.#index, answer), answer.offset, answer.byteSize));
  }

  /** Gives the slot up, answered or not: a worker that is still at it keeps it that long. Safe to call twice. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    dropped.unregister(this);
    this.#giveUp();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** As `console.log` shows it. */
  [inspect.custom](): string {
    const state = this.#isClosed ? "closed" : this.#answer === undefined ? "sent" : "answered";
    return `Call ${this.#generation} of ${this.#file.place.region}, ${state}`;
  }

  async #wait(options: LockOptions): Promise<AnswerRecord> {
    checkOptions("wait for a result", tables.lock, options);
    const { timeoutMs = Number.POSITIVE_INFINITY, signal } = options;
    const deadline = deadlineAfter(timeoutMs);
    for (let isLate = false; ; isLate = true) {
      signal?.throwIfAborted();
      this.#check();
      if (this.#answer !== undefined) return this.#answer;
      if (this.#file.bell.isAnswered(this.#index, this.#generation)) {
        this.#answer = this.#read();
        return this.#answer;
      }
      const leftMs = deadline - performance.now();
      if ((isLate || leftMs <= 0) && this.#isGivenUp()) {
        throw this.#failed("whoever had taken it has died, or given it up", {
          hint: "make the call again if it may be done twice",
        });
      }
      if (leftMs <= 0) {
        throw new TensordError("deadline-exceeded", `${this.#shown()}: there is none after ${timeoutMs} ms`, {
          hint: "ask again to wait longer, or close it: a worker that comes late finds that it is gone",
        });
      }
      const waited = { index: this.#index, generation: this.#generation, isLate };
      await this.#file.bell.waitForAnswer(waited, leftMs, signal);
    }
  }

  #read(): AnswerRecord {
    const { bell, slotBytes } = this.#file;
    let answer: AnswerRecord;
    try {
      answer = bell.readAnswer(this.#index);
    } catch (error) {
      if (!isTensordError(error, "validation-failed")) throw error;
      throw this.#failed(`its answer cannot be read: ${error.detail}`, { cause: error });
    }
    if (answer.kind !== failed) return answer;
    const size = Math.min(answer.byteSize, maxShownBytes, slotBytes);
    const raw = showBytes(this.#file.bufferOf(this.#index, answer), answer.offset, size);
    const reason = Buffer.from(raw).toString();
    throw this.#failed(reason, { fields: { reason } });
  }

  /** In this order: it is answered before it is unlocked. */
  #isGivenUp(): boolean {
    const { bell } = this.#file;
    return (
      bell.isTaken(this.#index, this.#generation) &&
      !this.#file.isOpenElsewhere(this.#index) &&
      !bell.isAnswered(this.#index, this.#generation)
    );
  }

  /** As long as it lives, this does. */
  #held<Shown extends object>(array: Shown): Shown {
    return Object.defineProperty(array, holder, { value: this });
  }

  #answered(): AnswerRecord {
    if (this.#answer !== undefined) return this.#answer;
    throw new TensordError(
      "validation-failed",
      `Cannot say what the result of call ${this.#generation} is: it is not here yet`,
      { hint: "await result() first" },
    );
  }

  #failed(why: string, options: { readonly hint?: string; readonly cause?: unknown; readonly fields?: object }) {
    const { fields, ...rest } = options;
    return new TensordError("request-failed", `${this.#shown()}: ${why}`, { ...rest, fields: { ...fields } });
  }

  #shown(): string {
    return `Cannot get the result of call ${this.#generation} of ring ${this.#file.place.region}`;
  }

  #check(): void {
    this.#file.bell.check();
    if (!this.#isClosed) return;
    throw new TensordError("closed", `${this.#shown()}: it was closed`, { hint: "copy the result before that" });
  }
}

const holder = Symbol("call");
