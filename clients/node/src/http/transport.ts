/**
 * HTTP over a Unix socket or TCP, with patience for a restarting server. It moves JSON and repeats what may be repeated.
 * What an answer means is decided in `api.ts`.
 */

import { Agent, type IncomingMessage, type RequestOptions, request } from "node:http";
import type { Readable } from "node:stream";
import { findOutOfDescriptors, outOfDescriptors } from "../descriptors.ts";
import { isRefusedForNow, TensordError } from "../errors.ts";
import { orAborted, pause, type WaitOptions } from "../waiting.ts";
import { type Endpoint, howToReach, toAuthorization } from "./endpoint.ts";
import { type Answer, isOfUse, type PlainAnswer, TooLong, toText, UnixExchange } from "./unix-exchange.ts";
import { isObject } from "./wire.ts";

const answerMs = 30_000;
const maxWaitSeconds = 300;
const maxAnswerBytes = 256 * 1024 * 1024;
/** Younger than the idle timeout of any server: it will not close such a connection while a request is under way. */
const keepMs = 4_000;
const firstPauseMs = 20;
const longestPauseMs = 250;

/** An answer in the wire's words. `isRepeated`: an earlier copy of the request was lost, and may have had its effect. */
export interface Reply {
  readonly status: number;
  readonly body: unknown;
  readonly isRepeated: boolean;
}

/** How a request is sent. */
export interface Sending extends WaitOptions {
  /** It may be sent again after an answer was lost; one that was refused, or never sent, always is. */
  readonly isRepeatable: boolean;
  /** Asks the server to hold its answer back until then, of `performance.now()` (`Prefer: wait`). */
  readonly waitUntil?: number | undefined;
  /** What else the server should know (`Prefer`). */
  readonly prefer?: string | undefined;
  /** Only what has this revision is to be changed. */
  readonly ifMatch?: number | undefined;
  /** A token is to be had by it: without one it is not asked again. */
  readonly isForToken?: boolean;
  /** How long an answer may take. */
  readonly answerMs?: number;
}

/** Bytes to send as they are; they are opened anew for each try. */
export interface Upload {
  readonly byteSize: number;
  readonly open: () => Readable;
}

/** Where the bytes of a success go, in order, in place of the answer's body. There are `byteSize`. */
export interface Download {
  readonly byteSize: number;
  readonly write: (byteOffset: number, bytes: Uint8Array) => Promise<void>;
}

export interface Request extends Sending {
  readonly body?: unknown;
  readonly upload?: Upload;
  readonly download?: Download;
}

/** What a reply says, without how it was got. */
type Outcome = Omit<Reply, "isRepeated">;

/** No connection: the server has not seen the request. */
class NotSent extends Error {}
/** The connection broke: the server may have seen the request, and may have done what it asks. */
class AnswerLost extends Error {}
/** As `AnswerLost`, but because the server took too long: asking again would not help. */
class AnswerLate extends AnswerLost {}

/** Requests to one server. `retryMs` bounds how long a server that was there may be away. */
export class Transport {
  readonly endpoint: Endpoint;
  readonly retryMs: number;
  readonly #agent = new Agent({ keepAlive: true, timeout: keepMs });
  /** Over the Unix socket. TCP, where there may be proxies, is the library's. */
  readonly #unix: UnixExchange | undefined;
  readonly #closing = new AbortController();
  #wasThere = false;
  /** The token that the server's broker issued with a session, for who has none of its own. */
  issuedToken: string | undefined;
  /** Gets another token than the one that was refused, if it can. */
  renewToken: ((refused: string | undefined) => Promise<boolean>) | undefined;

  constructor(endpoint: Endpoint, retryMs: number) {
    this.endpoint = endpoint;
    this.retryMs = retryMs;
    this.#unix = "path" in endpoint && isOfUse ? new UnixExchange(endpoint.path, keepMs, maxAnswerBytes) : undefined;
  }

  /** Whether the server has answered once: then it is worth waiting for. */
  get wasThere(): boolean {
    return this.#wasThere;
  }

  /** Aborted by `close`, with the error to throw. */
  get closed(): AbortSignal {
    return this.#closing.signal;
  }

  /**
   * Sends one request and returns its answer, whatever its status.
   * @throws TensordError `server-unavailable`, `access-denied`, `closed`, `server-fault`, `out-of-descriptors`; the signal's
   *   reason
   */
  async request(method: string, path: string, options: Request): Promise<Reply> {
    const token = this.issuedToken;
    const reply = await this.#send(method, path, options);
    if (reply.status !== 401 || options.isForToken === true || this.renewToken === undefined) return reply;
    const isRenewed = await orAborted(this.renewToken(token), options.signal);
    return isRenewed ? await this.#send(method, path, options) : reply;
  }

  /** As often as it takes. */
  async #send(method: string, path: string, options: Request): Promise<Reply> {
    const { signal } = options;
    let isRepeated = false;
    let giveUpAt = Number.POSITIVE_INFINITY;
    for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(2 * pauseMs, longestPauseMs)) {
      this.closed.throwIfAborted();
      signal?.throwIfAborted();
      const outcome = await this.#exchange(method, path, options).catch((error: unknown) => {
        signal?.throwIfAborted();
        return toFailure(error);
      });
      let mayRepeat = true;
      if (outcome instanceof NotSent) mayRepeat = this.#wasThere;
      else if (outcome instanceof AnswerLost) {
        mayRepeat = options.isRepeatable && !(outcome instanceof AnswerLate);
        isRepeated = true;
      } else {
        this.#wasThere = true;
        const waitMs = toWaitMs(outcome);
        const code = isObject(outcome.body) ? outcome.body.code : undefined;
        if (waitMs === 0 && !isRefusedForNow(outcome.status, code)) return { ...outcome, isRepeated };
        pauseMs = Math.max(pauseMs, waitMs);
      }
      const now = performance.now();
      giveUpAt = Math.min(giveUpAt, now + this.retryMs);
      if (!mayRepeat || now + pauseMs > giveUpAt) {
        this.closed.throwIfAborted();
        if (!(outcome instanceof Error)) return { ...outcome, isRepeated };
        throw this.#unavailable(outcome, isRepeated && !options.isRepeatable);
      }
      await pause(pauseMs, { signal });
    }
  }

  /** The header that says who asks. @throws TensordError `validation-failed` if the token's file has none. */
  authorization(): { readonly authorization?: string } {
    if (this.endpoint.token !== undefined || this.issuedToken === undefined) return toAuthorization(this.endpoint);
    return { authorization: `Bearer ${this.issuedToken}` };
  }

  /** Closes every connection. A request afterwards throws `closed`. */
  close(): void {
    this.#closing.abort(
      new TensordError("closed", "Cannot ask the server: the client was closed", { hint: "connect again" }),
    );
    this.#agent.destroy();
    this.#unix?.close();
  }

  #exchange(method: string, path: string, asked: Request) {
    const { body, upload, download, isRepeatable, waitUntil, prefer, ifMatch, signal, ...rest } = asked;
    const payload = body === undefined ? undefined : JSON.stringify(body);
    // Whole seconds, rounded down: the caller asks again, and without a wait in the last one.
    const waitMs = waitUntil === undefined ? 0 : waitUntil - performance.now();
    const waitSeconds = Math.max(0, Math.floor(Math.min(maxWaitSeconds, waitMs / 1000)));
    const preferences = [
      ...(waitSeconds > 0 ? [`wait=${waitSeconds}`] : []),
      ...(prefer === undefined ? [] : [prefer]),
    ];
    const headers = {
      accept: "application/json",
      ...this.authorization(),
      ...(payload === undefined
        ? {}
        : { "content-type": "application/json", "content-length": Buffer.byteLength(payload) }),
      ...(upload === undefined
        ? {}
        : { "content-type": "application/octet-stream", "content-length": upload.byteSize }),
      ...(ifMatch === undefined ? {} : { "if-match": `"${ifMatch}"` }),
      ...(preferences.length > 0 ? { prefer: preferences.join(", ") } : {}),
    };
    const deadlineMs = (rest.answerMs ?? answerMs) + waitSeconds * 1000;
    const isPlain = this.#unix !== undefined && upload === undefined && download === undefined;
    const text = isPlain ? toText({ method, path, headers, payload }) : undefined;
    // What must not be sent twice gets a connection of its own: a kept one may have ended without our knowing.
    const options = { ...this.#address(), method, path, agent: isRepeatable ? this.#agent : false, headers };
    return new Promise<Outcome>((resolve, reject) => {
      let watched = () => {};
      const watch = (cut: (why: Error) => void) => {
        const timer = setTimeout(() => cut(new AnswerLate(`no answer within ${deadlineMs} ms`)), deadlineMs);
        const abort = () => cut(new Error("aborted"));
        signal?.addEventListener("abort", abort, { once: true });
        watched = () => {
          clearTimeout(timer);
          signal?.removeEventListener("abort", abort);
        };
      };
      let source: Readable | undefined;
      const done = () => {
        watched();
        source?.destroy();
      };
      const fail = (error: Error) => {
        done();
        reject(this.#toError(error));
      };
      if (this.#unix !== undefined && text !== undefined) {
        const asked = this.#unix.ask(text, isRepeatable, watch);
        asked.then((answer) => readAnswer(answer).then(resolve, reject).finally(done), fail);
        return;
      }
      const sent = request(options, (response) => readBody(response, download).then(resolve, reject).finally(done));
      watch((why) => sent.destroy(why));
      sent.on("error", fail);
      source = upload?.open();
      if (source === undefined) {
        sent.end(payload);
        return;
      }
      source.on("error", (error) => sent.destroy(error));
      source.pipe(sent);
    });
  }

  #address(): RequestOptions {
    const { endpoint } = this;
    return "path" in endpoint ? { socketPath: endpoint.path } : { host: endpoint.host, port: endpoint.port };
  }

  #toError(error: NodeJS.ErrnoException): Error {
    if (error instanceof TooLong) return tooLong();
    const exhausted = findOutOfDescriptors(error);
    if (exhausted !== undefined) return outOfDescriptors(`connect to ${this.endpoint.url}`, exhausted);
    if (error.syscall !== "connect" && error.syscall !== "getaddrinfo") return error;
    // So many wait to be taken that a Unix socket lets nobody else wait: somebody listens.
    if (error.code === "EAGAIN") this.#wasThere = true;
    if (error.code !== "EACCES" && error.code !== "EPERM") return new NotSent(error.code, { cause: error });
    return new TensordError(
      "access-denied",
      `Cannot connect to ${this.endpoint.url}: ${error.code} for uid ${process.geteuid?.()}, gid ${process.getegid?.()}`,
      {
        hint: "run this process in the server's group (Kubernetes: the same fsGroup; docker: group_add)",
        cause: error,
      },
    );
  }

  #unavailable(failure: Error, isLost: boolean): TensordError {
    const { url, origin } = this.endpoint;
    const isSent = !(failure instanceof NotSent);
    const start = howToReach();
    return new TensordError(
      "server-unavailable",
      isSent
        ? `Cannot get an answer from tensord on ${url}: ${failure.message}`
        : `Cannot reach tensord: nobody listens on ${url} (${failure.message}); ${origin}`,
      {
        hint: isLost
          ? "whether it had its effect is not known: look (client.get, client.list) before repeating it"
          : start,
        fields: { requestSent: isSent },
        cause: failure,
      },
    );
  }
}

/** The failures that the caller decides about; any other one is thrown as it is. */
function toFailure(error: unknown): NotSent | AnswerLost {
  if (error instanceof NotSent || error instanceof AnswerLost) return error;
  if (error instanceof TensordError) throw error;
  const { message, code } = error as NodeJS.ErrnoException;
  return new AnswerLost(message || code, { cause: error });
}

async function readBody(response: IncomingMessage, download: Download | undefined) {
  if (download !== undefined && response.statusCode === 200) {
    await take(response, download);
    return { status: 200, body: undefined };
  }
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of response) {
    size += chunk.length;
    if (size > maxAnswerBytes) throw tooLong();
    chunks.push(chunk);
  }
  const contentType = response.headers["content-type"] ?? "";
  return toOutcome({ status: response.statusCode ?? 0, contentType, body: Buffer.concat(chunks) });
}

async function readAnswer(answer: Answer): Promise<Outcome> {
  return "body" in answer ? toOutcome(answer) : readBody(answer, undefined);
}

function toOutcome({ status, contentType, body }: PlainAnswer): Outcome {
  const isJson = /^application\/([\w.+-]+\+)?json\b/i.test(contentType);
  return { status, body: isJson ? parseJson(body.toString()) : undefined };
}

function tooLong(): TensordError {
  return new TensordError("server-fault", `Cannot read the server's answer: it has more than ${maxAnswerBytes} bytes`);
}

async function take(response: IncomingMessage, { byteSize, write }: Download): Promise<void> {
  let size = 0;
  for await (const chunk of response) {
    if (size + chunk.length > byteSize) break;
    await write(size, chunk);
    size += chunk.length;
  }
  // Not every runtime says that an answer was cut.
  if (size !== byteSize) throw new Error(`the answer has not the ${byteSize} bytes that were wanted`);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new TensordError("server-fault", `Cannot read the server's answer: it is no JSON (${cause})`, { cause });
  }
}

/** After how long the server wants to be asked again, if it says so: it is asked too often. */
function toWaitMs({ status, body }: Pick<Reply, "status" | "body">): number {
  const seconds = status === 429 && isObject(body) ? body.retry_after_seconds : undefined;
  return typeof seconds === "number" ? seconds * 1000 : 0;
}
