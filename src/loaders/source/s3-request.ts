/**
 * One request for a range of an object. It is signed by Bun's S3 client and sent by itself, with the ETag that the object has to have
 * (`If-Match`): what the client's own reads do not say is seen here, another state of the object, a range that is none, a way elsewhere.
 */

import assert from "node:assert/strict";
import { fileLimits } from "../limits.ts";
import type { S3Credentials, S3Options } from "./s3-options.ts";
import { changed, empty, Passing, toFailedRequest, toRefusal, unusable } from "./s3-refusal.ts";
import type { S3Object } from "./s3-uri.ts";

/** A range, as requests and answers say it: its last byte is in it. */
export interface Answered {
  readonly first: number;
  readonly last: number;
  readonly byteSize: number;
  readonly etag: string;
  readonly lastModified: string;
}

/** One request and its answer, given up when nothing comes for a while. */
export class S3Request implements AsyncDisposable {
  readonly #object: S3Object;
  readonly #options: S3Options;
  readonly #stallMs: number;
  readonly #rangeMs: number;
  /** When it is given up, whatever comes. */
  readonly #endsAt: number;
  readonly #turn: Disposable;
  readonly #signal: AbortSignal;
  readonly #giveUp = new AbortController();
  #timer: Timer | undefined;
  #response: Response | undefined;
  #answered: Answered | undefined;

  constructor(object: S3Object, options: S3Options, turn: Disposable, signal: AbortSignal) {
    this.#object = object;
    this.#options = options;
    this.#stallMs = options.stallMs ?? fileLimits.objectStallMs;
    this.#rangeMs = options.rangeMs ?? fileLimits.objectRangeMs;
    this.#endsAt = performance.now() + this.#rangeMs;
    this.#turn = turn;
    this.#signal = signal;
  }

  get answered(): Answered {
    if (this.#answered === undefined) throw new Error("a request was sent before its answer is looked at");
    return this.#answered;
  }

  /**
   * Sends it, and looks at what stands before the answer's body.
   * @param etag of the object as it was opened. @throws Passing, or TensordError as `S3Source.read`.
   */
  async send({ first, last }: Pick<Answered, "first" | "last">, etag: string | undefined): Promise<void> {
    const headers = { range: `bytes=${first}-${last}`, ...(etag === undefined ? {} : { "if-match": etag }) };
    // Packed by the service, it would be no range of the object; and a signature is for nobody but whom it was made for.
    const how = { headers, redirect: "manual", decompress: false } as const;
    const address = toAddress(this.#options, this.#object);
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
    const refusal = toRefusal(this.#object, this.#options, response.status, response.headers, code);
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
    const left = Math.max(0, this.#endsAt - performance.now());
    this.#timer = setTimeout(() => this.#giveUp.abort(), Math.min(left, this.#stallMs));
    try {
      return await act();
    } catch (error) {
      this.#signal.throwIfAborted();
      // What it failed with has the signed address in it, and goes nowhere.
      if (!this.#giveUp.signal.aborted) throw toFailedRequest(this.#object, error);
      throw new Passing(
        left < this.#stallMs
          ? `the service takes more than ${this.#rangeMs / 1000} s for a range`
          : `nothing came from the service for ${this.#stallMs / 1000} s`,
      );
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
