/**
 * One kept connection to a Unix socket that sends prepared bytes and waits for the whole answer. `fetch` costs more than
 * what is measured here; this costs one write and one read.
 */

import type { Socket } from "bun";

export interface Answer {
  readonly status: number;
  readonly body: string;
}

const headEnd = Buffer.from("\r\n\r\n");

export class HttpConnection implements Disposable {
  #socket!: Socket;
  #received = Buffer.alloc(0);
  #waiting: { resolve(answer: Answer): void; reject(error: Error): void } | undefined;

  static async open(unix: string): Promise<HttpConnection> {
    const connection = new HttpConnection();
    connection.#socket = await Bun.connect({
      unix,
      socket: {
        data: (_, chunk) => connection.#take(chunk),
        close: () => connection.#waiting?.reject(new Error("the server closed the connection")),
        error: (_, error) => connection.#waiting?.reject(error),
      },
    });
    return connection;
  }

  /** Sends a request made by `toRequest`. One at a time. */
  send(request: Buffer): Promise<Answer> {
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
      const written = this.#socket.write(request);
      if (written !== request.length) reject(new Error(`the socket took ${written} of ${request.length} bytes`));
    });
  }

  #take(chunk: Buffer): void {
    this.#received = this.#received.length === 0 ? Buffer.from(chunk) : Buffer.concat([this.#received, chunk]);
    const end = this.#received.indexOf(headEnd);
    if (end === -1) return;
    const head = this.#received.toString("latin1", 0, end);
    const length = Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0);
    const from = end + headEnd.length;
    if (this.#received.length < from + length) return;
    const answer = { status: Number(head.slice(9, 12)), body: this.#received.toString("utf8", from, from + length) };
    this.#received = Buffer.alloc(0);
    this.#waiting?.resolve(answer);
  }

  [Symbol.dispose](): void {
    this.#waiting = undefined;
    this.#socket.end();
  }
}

/** The bytes of a request; the body as JSON, if there is one. */
export function toRequest(method: string, path: string, body?: unknown): Buffer {
  const text = body === undefined ? "" : JSON.stringify(body);
  const type =
    body === undefined ? "" : `content-type: application/json\r\ncontent-length: ${Buffer.byteLength(text)}\r\n`;
  return Buffer.from(`${method} ${path} HTTP/1.1\r\nhost: localhost\r\n${type}\r\n${text}`);
}
