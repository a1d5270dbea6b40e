/**
 * Objects of an S3 service, by ranges. Each request is signed by Bun's S3 client and sent by itself, with the ETag that it has to be of
 * (`If-Match`): what the client's own reads do not say is seen here, another state of the object, a range that is none, a way elsewhere.
 */

import assert from "node:assert/strict";
import { setTimeout as pause } from "node:timers/promises";
import { fileLimits } from "../limits.ts";
import type { S3Credentials, S3Options, S3Part } from "./s3-options.ts";
import { changed, empty, givenUp, Passing, toFailedRequest, toRefusal, unusable } from "./s3-refusal.ts";
import type { S3Object } from "./s3-uri.ts";
import { Turns } from "./turns.ts";

/** A range, as requests and answers say it: its last byte is in it. */
interface Answered {
  readonly first: number;
  readonly last: number;
  readonly byteSize: number;
  readonly etag: string;
  readonly lastModified: string;
}

export class S3Source {
  readonly #options: S3Options;
  readonly #turns = new Turns(fileLimits.objectRequests);

  constructor(options: S3Options) {
    this.#options = options;
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
    const request = new S3Request(object, this.#options.stallMs ?? fileLimits.objectStallMs, turn, signal);
    try {
      await request.send(this.#options, { first: byteOffset, last: byteOffset + byteSize - 1 }, of?.etag);
      const { answered } = request;
      if (of !== undefined && (answered.etag !== of.etag || answered.byteSize !== of.byteSize)) throw changed(object);
      return request;
    } catch (error) {
      await request[Symbol.asyncDispose]();
      throw error;
    }
  }
}

/** One request and its answer, given up when nothing comes for a while. */
class S3Request implements AsyncDisposable {
  readonly #object: S3Object;
  readonly #stallMs: number;
  readonly #turn: Disposable;
  readonly #signal: AbortSignal;
  readonly #giveUp = new AbortController();
  #timer: Timer | undefined;
  #response: Response | undefined;
  #answered: Answered | undefined;

  constructor(object: S3Object, stallMs: number, turn: Disposable, signal: AbortSignal) {
    this.#object = object;
    this.#stallMs = stallMs;
    this.#turn = turn;
    this.#signal = signal;
  }

  get answered(): Answered {
    if (this.#answered === undefined) throw new Error("a request was sent before its answer is looked at");
    return this.#answered;
  }

  async send(
    options: S3Options,
    { first, last }: Pick<Answered, "first" | "last">,
    etag: string | undefined,
  ): Promise<void> {
    const headers = { range: `bytes=${first}-${last}`, ...(etag === undefined ? {} : { "if-match": etag }) };
    // Packed by the service, it would be no range of the object; and a signature is for nobody but whom it was made for.
    const how = { headers, redirect: "manual", decompress: false } as const;
    const address = toAddress(options, this.#object);
    const signal = AbortSignal.any([this.#signal, this.#giveUp.signal]);
    const response = await this.#watched(() => fetch(address, { ...how, signal }));
    this.#response = response;
    if (response.status === 206) {
      this.#answered = toAnswered(this.#object, response.headers, first);
      return;
    }
    if (response.status === 200) throw unusable(this.#object, "the service answers a range with the whole object");
    if (response.status === 412) throw changed(this.#object);
    if (response.status === 416) throw etag === undefined ? empty(this.#object) : changed(this.#object);
    const code = await this.#readCode();
    const refusal = toRefusal(this.#object, options, response.status, response.headers, code);
    // It was there before.
    throw response.status === 404 && etag !== undefined ? changed(this.#object) : refusal;
  }

  /** The range, whole. @throws Passing where it breaks off. */
  async *pieces(): AsyncGenerator<Uint8Array, void, undefined> {
    const { first, last } = this.answered;
    const want = last - first + 1;
    let byteSize = 0;
    for await (const piece of this.#body()) {
      byteSize += piece.length;
      if (byteSize > want) throw unusable(this.#object, `the service answers more than the ${want} bytes of a range`);
      yield piece;
    }
    if (byteSize < want) throw new Passing(`the service ends a range after ${byteSize} of ${want} bytes`);
  }

  async *#body(): AsyncGenerator<Uint8Array, void, undefined> {
    const reader = this.#response?.body?.getReader();
    if (reader === undefined) return;
    for (;;) {
      const { done, value } = await this.#watched(() => reader.read());
      if (done) return;
      yield value;
    }
  }

  /** The code of a refusal: the only word of it that is told. */
  async #readCode(): Promise<string> {
    let text = "";
    try {
      for await (const piece of this.#body()) {
        text += Buffer.from(piece).toString("latin1");
        if (text.length > fileLimits.objectRefusalBytes) break;
      }
    } catch (error) {
      if (!(error instanceof Passing)) throw error;
    }
    return /<Code>([A-Za-z]{1,64})<\/Code>/.exec(text)?.[1] ?? "";
  }

  /** Waits for what the service does next, but not for ever. */
  async #watched<Result>(act: () => Promise<Result>): Promise<Result> {
    this.#timer = setTimeout(() => this.#giveUp.abort(), this.#stallMs);
    try {
      return await act();
    } catch (error) {
      this.#signal.throwIfAborted();
      // What it failed with has the signed address in it, and goes nowhere.
      if (!this.#giveUp.signal.aborted) throw toFailedRequest(this.#object, error);
      throw new Passing(`nothing came from the service for ${this.#stallMs / 1000} s`);
    } finally {
      clearTimeout(this.#timer);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#timer);
    // Also where it was read to its end, which makes no difference then.
    this.#giveUp.abort();
    await this.#response?.body?.cancel().catch(() => {});
    this.#turn[Symbol.dispose]();
  }
}

function toAnswered(object: S3Object, headers: Headers, wanted: number): Answered {
  const range = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15})$/.exec(headers.get("content-range") ?? "");
  if (range === null) throw unusable(object, "the service does not say which range it answers");
  const [first, last, byteSize] = range.slice(1).map(Number) as [number, number, number];
  if (first !== wanted || last < first || last >= byteSize) throw unusable(object, "it answers another range");
  const etag = headers.get("etag") ?? "";
  if (etag === "") throw unusable(object, "the service tells no ETag, by which a change could be seen");
  return { first, last, byteSize, etag, lastModified: headers.get("last-modified") ?? "" };
}

/** Where a request goes to, with its signature. It is told to nobody. */
function toAddress(options: S3Options, object: S3Object): string {
  const address =
    options.credentials === undefined ? toPlain(options, object) : sign(options, object, options.credentials);
  const { pathname } = new URL(address);
  const isMeant =
    decodeURIComponent(pathname) === `${decodeURIComponent(toBase(options))}/${object.bucket}/${object.key}`;
  assert(isMeant, "an address is that of the object, whatever its key has in it");
  return address;
}

function toBase({ endpoint }: S3Options): string {
  return new URL(endpoint).pathname.replace(/\/$/, "");
}

function toPlain({ endpoint }: S3Options, { bucket, key }: S3Object): string {
  return `${endpoint}/${bucket}/${key.split("/").map(encodeURIComponent).join("/")}`;
}

function sign({ endpoint, region }: S3Options, { bucket, key }: S3Object, credentials: S3Credentials): string {
  const { sessionToken, ...keys } = credentials;
  const client = new Bun.S3Client({ endpoint, region, bucket, ...keys, ...(sessionToken && { sessionToken }) });
  return client.presign(key, { method: "GET", expiresIn: fileLimits.objectSignatureSeconds });
}

function isChange(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "invalid-model-file";
}
