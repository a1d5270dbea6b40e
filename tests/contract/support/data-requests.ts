/** A region's data asked for and sent without a socket, as bytes, and each answer held against the document. */

import { type Answer, checkAnswer } from "../../harness/answers.ts";
import type { TestApp } from "../../harness/app.ts";

export interface DataAnswer extends Answer {
  readonly bytes: Buffer;
}

export interface DataOptions {
  readonly tensor?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

export function toDataPath(id: string, tensor?: string): string {
  return `/v1/regions/${id}/data${tensor === undefined ? "" : `?tensor=${encodeURIComponent(tensor)}`}`;
}

export function readBytes(app: TestApp, id: string, { tensor, headers = {} }: DataOptions = {}): Promise<DataAnswer> {
  return fetchData(app, toDataPath(id, tensor), { headers });
}

export function writeBytes(
  app: TestApp,
  id: string,
  body: Uint8Array | undefined,
  { tensor, headers = {} }: DataOptions = {},
): Promise<DataAnswer> {
  const init = { method: "PUT", headers: { "content-type": "application/octet-stream", ...headers } };
  return fetchData(app, toDataPath(id, tensor), body === undefined ? init : { ...init, body });
}

async function fetchData(app: TestApp, path: string, init: RequestInit): Promise<DataAnswer> {
  const response = await app.app.fetch(new Request(`http://localhost${path}`, init), {});
  const { status, headers } = response;
  const bytes = Buffer.from(await response.bytes());
  const isJson = headers.get("content-type")?.includes("json") === true;
  const answer = { status, headers, bytes, body: isJson ? JSON.parse(bytes.toString()) : undefined };
  checkAnswer(init.method ?? "GET", path, answer);
  return answer;
}

/** An upload whose body comes as the test lets it. */
export interface StreamedUpload {
  readonly answer: Promise<DataAnswer>;
  readonly isAsked: boolean;
  readonly isCancelled: boolean;
  /** Whether somebody reads it. */
  readonly isRead: boolean;
  send(bytes: Uint8Array): void;
  end(): void;
  /** Goes away, as the runtime tells it: by the request's signal, and by an error where the body goes on. */
  leave(): void;
}

export function sendStream(app: TestApp, id: string, options: DataOptions = {}): StreamedUpload {
  let controller: ReadableStreamDefaultController<Uint8Array> | undefined;
  let asked = false;
  let isCancelled = false;
  const connection = new AbortController();
  const body = new ReadableStream<Uint8Array>(
    {
      start: (its) => {
        controller = its;
      },
      pull: () => {
        asked = true;
      },
      cancel: () => {
        isCancelled = true;
      },
    },
    // Nothing is pulled before somebody reads.
    { highWaterMark: 0 },
  );
  const init = { method: "PUT", headers: { ...options.headers }, body, signal: connection.signal };
  return {
    answer: fetchData(app, toDataPath(id, options.tensor), init),
    get isAsked() {
      return asked;
    },
    get isCancelled() {
      return isCancelled;
    },
    get isRead() {
      return body.locked;
    },
    // A copy, since whoever reads it takes its memory.
    send: (bytes) => controller?.enqueue(Uint8Array.from(bytes)),
    end: () => controller?.close(),
    leave: () => {
      connection.abort();
      controller?.error(new DOMException("The connection was closed.", "AbortError"));
    },
  };
}
