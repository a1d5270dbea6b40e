/**
 * Objects of an S3 service, by ranges, each of the state that was opened; what passes is asked for again. A few requests at a time, whoever
 * asks.
 */

import { setTimeout as pause } from "node:timers/promises";
import { fileLimits } from "../limits.ts";
import type { S3Options, S3Part } from "./s3-options.ts";
import { changed, givenUp, Passing, unusable } from "./s3-refusal.ts";
import { S3Request } from "./s3-request.ts";
import type { S3Object } from "./s3-uri.ts";
import { Turns } from "./turns.ts";

export class S3Source {
  readonly #options: S3Options;
  readonly #turns: Turns;

  /** @param requests how many may be on their way at a time. */
  constructor(options: S3Options, requests: number) {
    this.#options = options;
    this.#turns = new Turns(requests);
  }

  /**
   * Reads the beginning of an object, as it is now.
   * @returns it, and what tells this state of it. @throws TensordError as `read`, and of an object that is empty.
   */
  async open(object: S3Object, signal: AbortSignal): Promise<{ readonly part: S3Part; readonly begin: Uint8Array }> {
    return await this.#repeat(object, signal, async () => {
      await using request = await this.#ask(object, 0, fileLimits.prefixBytes, undefined, signal);
      const { byteSize, etag, lastModified, last } = request.answered;
      const part = { bucket: object.bucket, key: object.key, byteSize, etag, lastModified };
      if (last !== Math.min(byteSize, fileLimits.prefixBytes) - 1) throw unusable(object, "it answers another range");
      const begin = new Uint8Array(last + 1);
      let at = 0;
      for await (const piece of request.pieces()) {
        begin.set(piece, at);
        at += piece.length;
      }
      return { part, begin };
    });
  }

  /**
   * Reads a range of an object that was opened. Where an answer breaks off it is asked for the rest.
   * @param take gets the bytes in their order, piece by piece.
   * @throws TensordError `invalid-model-file` if it is not there or another by now, `io-error` of a service that refuses or cannot be
   * gone by, `source-unavailable` of one that does not answer; `signal.reason`.
   */
  async read(
    part: S3Part,
    byteOffset: number,
    byteSize: number,
    take: (piece: Uint8Array) => void,
    signal: AbortSignal,
  ): Promise<void> {
    let done = 0;
    await this.#repeat(part, signal, async () => {
      // All of it may have come before the connection broke.
      if (done === byteSize) return;
      await using request = await this.#ask(part, byteOffset + done, byteSize - done, part, signal);
      if (request.answered.last !== byteOffset + byteSize - 1) throw unusable(part, "it answers another range");
      for await (const piece of request.pieces()) {
        take(piece);
        done += piece.length;
      }
    });
  }

  /** Whether an object is still the one that was opened. @throws TensordError as `read`. */
  async isSame(part: S3Part, signal: AbortSignal): Promise<boolean> {
    try {
      await this.read(part, 0, 1, () => {}, signal);
      return true;
    } catch (error) {
      if (isChange(error)) return false;
      throw error;
    }
  }

  /** Does it until it is done, or fails otherwise than what passes. */
  async #repeat<Result>(object: S3Object, signal: AbortSignal, act: () => Promise<Result>): Promise<Result> {
    let wait = this.#options.pauseMs ?? fileLimits.objectPauseMs;
    for (let attempt = 1; ; attempt++) {
      try {
        return await act();
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof Passing)) throw error;
        if (attempt === fileLimits.objectAttempts) throw givenUp(object, attempt, error);
      }
      // Not all at the same moment.
      await pause(wait * (0.5 + Math.random() / 2), undefined, { signal }).catch(() => signal.throwIfAborted());
      wait = Math.min(2 * wait, fileLimits.objectLongestPauseMs);
    }
  }

  /** Sends one request, and looks whether its answer is the range of that object. The caller lets go of it. */
  async #ask(
    object: S3Object,
    byteOffset: number,
    byteSize: number,
    of: S3Part | undefined,
    signal: AbortSignal,
  ): Promise<S3Request> {
    const turn = await this.#turns.take(signal);
    const request = new S3Request(object, this.#options, turn, signal);
    try {
      await request.send({ first: byteOffset, last: byteOffset + byteSize - 1 }, of?.etag);
      const { answered } = request;
      if (of !== undefined && (answered.etag !== of.etag || answered.byteSize !== of.byteSize)) throw changed(object);
      return request;
    } catch (error) {
      await request[Symbol.asyncDispose]();
      throw error;
    }
  }
}

function isChange(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "invalid-model-file";
}
