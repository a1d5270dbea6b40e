/**
 * A connection on which a test says and hears exactly what HTTP/1.1 carries: it stops reading, sends half a body, leaves,
 * and takes answers one after another, so that bytes that belong to no answer are noticed.
 */

import { connect, type Socket } from "node:net";
import { patienceMs, until } from "./server-wait.ts";

const MiB = 2 ** 20;

export interface SocketAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Buffer;
}

/** A URL of TCP, or the path of a Unix socket. */
export type Target = string;

export class DataSocket implements Disposable {
  readonly #socket: Socket;
  readonly #host: string;
  /** What came and belongs to no answer yet. */
  #chunks: Buffer[] = [];
  #length = 0;
  #hasEnded = false;
  #stopsAtFirst = false;

  constructor(target: Target) {
    const url = URL.parse(target);
    this.#host = url?.host ?? "localhost";
    this.#socket = url === null ? connect(target) : connect(Number(url.port), url.hostname);
    this.#socket.on("data", (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#length += chunk.length;
      if (this.#stopsAtFirst) this.#socket.pause();
    });
    for (const event of ["end", "close", "error"]) {
      this.#socket.on(event, () => {
        this.#hasEnded = true;
      });
    }
  }

  /** Whether the other side has ended the connection. */
  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /** Bytes that came and were not taken as an answer. */
  get waitingBytes(): number {
    return this.#length;
  }

  /** Resolves when the bytes have left, or the connection has ended. */
  async send(bytes: string | Uint8Array): Promise<void> {
    if (this.#hasEnded || this.#socket.write(bytes)) return;
    await until("the bytes have left", () => !this.#socket.writableNeedDrain || this.#hasEnded, 2 * patienceMs);
  }

  /** Says that nothing more will be sent, and goes on reading. */
  end(): void {
    this.#socket.end();
  }

  /** The head of a request; `headers` are lines. */
  toHead(method: string, path: string, ...headers: string[]): string {
    return `${[`${method} ${path} HTTP/1.1`, `Host: ${this.#host}`, ...headers].join("\r\n")}\r\n\r\n`;
  }

  /** Sends the head of a request. */
  async ask(method: string, path: string, ...headers: string[]): Promise<void> {
    await this.send(this.toHead(method, path, ...headers));
  }

  /** Sends `byteSize` bytes that repeat `block`, all of them whatever comes back, as most clients do. */
  async pour(block: Uint8Array, byteSize: number): Promise<void> {
    for (let sent = 0; sent < byteSize && !this.#hasEnded; sent += block.length) {
      await this.send(block.subarray(0, byteSize - sent));
    }
  }

  /** The next answer, whole. @throws Error if the connection ends before its Content-Length is there. */
  async answer(deadlineMs = patienceMs): Promise<SocketAnswer> {
    const headEnd = await until("the head of an answer", () => this.#findHeadEnd() ?? this.#failIfEnded(), deadlineMs);
    const { status, headers } = parseHead(this.#take(headEnd).toString("latin1"));
    const byteSize = Number(headers.get("content-length") ?? 0);
    await until(`${byteSize} bytes`, () => this.#length >= byteSize || this.#failIfEnded(), deadlineMs);
    return { status, headers, body: this.#take(byteSize) };
  }

  /** Waits for the first bytes of an answer, and reads no others until `resume`. */
  async begin(): Promise<void> {
    this.#stopsAtFirst = true;
    await until("an answer begins", () => this.#length > 0 || this.#failIfEnded());
  }

  resume(): void {
    this.#stopsAtFirst = false;
    this.#socket.resume();
  }

  /** Everything that came until the other side ended the connection. */
  async last(deadlineMs?: number): Promise<Buffer> {
    await until("the connection ends", () => this.#hasEnded, deadlineMs);
    return this.#take(this.#length);
  }

  #findHeadEnd(): number | undefined {
    // Heads are small: it is there within the first bytes, or not yet.
    const at = this.#chunks.length === 0 ? -1 : this.#join(MiB).indexOf("\r\n\r\n");
    return at === -1 ? undefined : at + 4;
  }

  #failIfEnded(): undefined {
    if (this.#hasEnded) throw new Error(`the connection ended after ${this.#length} bytes of an answer`);
  }

  /** The first `byteSize` bytes or more in one piece, without taking them. */
  #join(byteSize: number): Buffer {
    const [first] = this.#chunks;
    if (first !== undefined && (first.length >= byteSize || this.#chunks.length === 1)) return first;
    this.#chunks = [Buffer.concat(this.#chunks)];
    return this.#chunks[0] ?? Buffer.alloc(0);
  }

  #take(byteSize: number): Buffer {
    const all = this.#join(this.#length);
    this.#chunks = all.length > byteSize ? [all.subarray(byteSize)] : [];
    this.#length -= byteSize;
    return all.subarray(0, byteSize);
  }

  /** Goes away without a word. */
  [Symbol.dispose](): void {
    this.#socket.destroy();
  }
}

function parseHead(text: string): Pick<SocketAnswer, "status" | "headers"> {
  const [statusLine = "", ...lines] = text.trimEnd().split("\r\n");
  const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(statusLine)?.[1]);
  if (!(status > 0)) throw new Error(`no answer of HTTP/1.1, but ${JSON.stringify(text.slice(0, 200))}`);
  const pairs = lines.map((line): [string, string] => {
    const at = line.indexOf(":");
    return [line.slice(0, at), line.slice(at + 1).trim()];
  });
  return { status, headers: new Headers(pairs) };
}
