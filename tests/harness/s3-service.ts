/**
 * An S3 service in the test's own process, which does what no real one does when asked: stalls, breaks off, answers something else. It
 * knows ranges, ETags and If-Match, looks at no signature, and keeps what it was asked.
 */

import { createHash } from "node:crypto";
import { createServer, type Server, type Socket } from "node:net";
import type { S3Options } from "../../src/loaders/source/s3-options.ts";

export const bucket = "models";

/** A request that has come, as far as anybody looks at it. */
export interface AskedObject {
  readonly key: string;
  readonly query: URLSearchParams;
  readonly headers: ReadonlyMap<string, string>;
  /** The range, and how many bytes of the object there are. */
  readonly first: number;
  readonly last: number;
  /** Which one it is, from 1. */
  readonly number: number;
}

/** An answer, as it goes over the wire: what stands before the body, its bytes, and what becomes of the connection then. */
export interface Answered {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array | string;
  /**
   * Left out: it stays for the next request. `stall`: it stays, and nothing comes. `drip`: a byte comes
   * again and again.
   */
  readonly end?: "close" | "stall" | "drip";
}

/** Changes what would have been answered. */
export type Behave = (asked: AskedObject, answer: Answered) => Answered;

export class S3Service implements AsyncDisposable {
  readonly objects = new Map<string, Uint8Array>();
  readonly asked: AskedObject[] = [];
  behave: Behave | undefined;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(server: Server) {
    this.#server = server;
    server.on("connection", (socket) => {
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
      socket.on("error", () => {});
      let text = "";
      socket.on("data", (bytes) => {
        text += bytes.toString("latin1");
        for (let end = text.indexOf("\r\n\r\n"); end >= 0; end = text.indexOf("\r\n\r\n")) {
          const request = text.slice(0, end);
          text = text.slice(end + 4);
          this.#send(socket, this.#answer(request));
        }
      });
    });
  }

  static async start(): Promise<S3Service> {
    const server = createServer();
    const { promise, resolve } = Promise.withResolvers<void>();
    server.listen(0, "127.0.0.1", resolve);
    await promise;
    return new S3Service(server);
  }

  get endpoint(): string {
    const address = this.#server.address();
    if (address === null || typeof address === "string") throw new Error("the service listens on a port");
    return `http://127.0.0.1:${address.port}`;
  }

  /** With which an app asks here. It gives up soon, and is not slow to try again. */
  get options(): S3Options {
    const credentials = { accessKeyId: "TESTKEY", secretAccessKey: "test-secret", sessionToken: undefined };
    return { endpoint: this.endpoint, region: "us-east-1", credentials, pauseMs: 1 };
  }

  /** Puts an object. @returns its URI. */
  put(key: string, content: Uint8Array | string): string {
    this.objects.set(key, typeof content === "string" ? Buffer.from(content) : content);
    return `s3://${bucket}/${key}`;
  }

  /** Connections that are open. */
  get connections(): number {
    return this.#sockets.size;
  }

  #answer(request: string): Answered {
    const [line = "", ...lines] = request.split("\r\n");
    const url = new URL(line.split(" ")[1] ?? "/", this.endpoint);
    const headers = new Map(
      lines.map((one) => [one.slice(0, one.indexOf(":")).toLowerCase(), one.slice(one.indexOf(":") + 1).trim()]),
    );
    const key = decodeURIComponent(url.pathname.slice(bucket.length + 2));
    const content = url.pathname.startsWith(`/${bucket}/`) ? this.objects.get(key) : undefined;
    const size = content?.length ?? 0;
    const [, first = 0, end = 0] = (/^bytes=(\d+)-(\d+)$/.exec(headers.get("range") ?? "") ?? []).map(Number);
    const asked = {
      key,
      query: url.searchParams,
      headers,
      first,
      last: Math.min(end, size - 1),
      number: this.asked.length + 1,
    };
    this.asked.push(asked);
    const answer = this.#plain(content, asked);
    return this.behave?.(asked, answer) ?? answer;
  }

  #plain(content: Uint8Array | undefined, { headers, first, last }: AskedObject): Answered {
    if (content === undefined) return refusal(404, "NoSuchKey");
    const etag = `"${createHash("md5").update(content).digest("hex")}"`;
    const match = headers.get("if-match");
    if (match !== undefined && match !== etag) return refusal(412, "PreconditionFailed");
    if (first >= content.length) return refusal(416, "InvalidRange");
    const range = { "content-range": `bytes ${first}-${last}/${content.length}` };
    const lastModified = { "last-modified": "Mon, 30 Nov 2026 00:00:00 GMT" };
    return { status: 206, headers: { ...range, etag, ...lastModified }, body: content.subarray(first, last + 1) };
  }

  #send(socket: Socket, { status, headers, body, end }: Answered): void {
    const bytes = typeof body === "string" ? Buffer.from(body) : body;
    const all = { "content-length": String(bytes.length), ...headers };
    const head = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
    socket.write(`HTTP/1.1 ${status} x\r\n${head.join("")}\r\n`);
    if (bytes.length > 0) socket.write(bytes);
    if (end === "close") socket.end();
    if (end === "drip") {
      const timer = setInterval(() => socket.write("x"), 5);
      socket.on("close", () => clearInterval(timer));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.close(() => resolve());
    await promise;
  }
}

export function refusal(status: number, code: string, headers: Readonly<Record<string, string>> = {}): Answered {
  const body = `<?xml version="1.0"?><Error><Code>${code}</Code><Message>no</Message></Error>`;
  return { status, headers: { "content-type": "application/xml", ...headers }, body };
}
