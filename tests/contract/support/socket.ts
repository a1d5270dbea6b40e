/** A real transport over a real store, and a client that says on the wire exactly what it is told to. */

import { connect, type Socket } from "node:net";
import { Connections } from "../../../src/server/connections.ts";
import { Transport } from "../../../src/server/transport.ts";
import { type TestApp, toMistake, withApp } from "../../harness/app.ts";

export interface Listener {
  readonly app: TestApp;
  readonly url: string;
  /** The Unix socket's path; empty on TCP. */
  readonly path: string;
  readonly transport: Transport;
}

/** Connections of a server in this process, whose limit is not to be touched: they are counted, and nothing is done. */
export function unwatched(): Connections {
  return new Connections({ begins() {}, ends() {} });
}

type Use = (server: Listener) => Promise<void>;

/** A test's body with a server on loopback TCP. */
export function withTcp(use: Use): () => Promise<void> {
  return withListener(use, (transport) => transport.listenTcp("127.0.0.1", 0));
}

/** A test's body with a server on a Unix socket. */
export function withUnix(use: Use): () => Promise<void> {
  return withListener(use, (transport, app) => transport.listenUnix(`/dev/shm/tensord.${app.instance}/http.sock`));
}

function withListener(use: Use, open: (transport: Transport, app: TestApp) => string | Promise<string>) {
  return withApp(async (app) => {
    const transport = toTransport(app);
    const url = await open(transport, app);
    try {
      await use({ app, url, path: url.replace(/^(unix|http):\/\/([^/]+$)?/, ""), transport });
    } finally {
      app.store.stop();
      await transport.stop(0);
    }
  });
}

function toTransport(app: TestApp): Transport {
  return new Transport(app.app, app.traffic, (error) => app.mistakes.push(toMistake(error)), unwatched());
}

/** For tests that share an app: a server for it on loopback TCP, until it is disposed of. */
export function openTcp(app: TestApp): { readonly url: string } & AsyncDisposable {
  const transport = toTransport(app);
  const url = transport.listenTcp("127.0.0.1", 0);
  return { url, [Symbol.asyncDispose]: async () => await transport.stop(0) };
}

/** What came back: the status, the headers in lower case, and the body as text. */
export interface RawAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: string;
}

/** A connection that sends bytes as they are and reads what comes. */
export class RawClient implements Disposable {
  readonly #socket: Socket;
  #received = Buffer.alloc(0);
  #ended = false;
  #wake: () => void = () => {};

  /** @param target a path, or a port of 127.0.0.1. */
  constructor(target: string | number) {
    this.#socket = typeof target === "number" ? connect(target, "127.0.0.1") : connect(target);
    this.#socket.on("data", (data: Buffer) => {
      this.#received = Buffer.concat([this.#received, data]);
      this.#wake();
    });
    for (const event of ["close", "error", "end", "drain"]) {
      this.#socket.on(event, () => {
        if (event !== "drain") this.#ended = true;
        this.#wake();
      });
    }
  }

  get hasEnded(): boolean {
    return this.#ended;
  }

  get hasReceived(): boolean {
    return this.#received.length > 0;
  }

  /** Resolves when the bytes have left, or the other side is gone. */
  async send(bytes: string | Uint8Array): Promise<void> {
    if (this.#ended || this.#socket.write(bytes)) return;
    while (this.#socket.writableNeedDrain && !this.#ended) await this.#change();
  }

  /** The first answer, whole by its Content-Length. @throws if the connection ends before. */
  async answer(deadlineMs = 20_000): Promise<RawAnswer> {
    const timer = setTimeout(() => this.#socket.destroy(), deadlineMs);
    try {
      for (;;) {
        const answer = parse(this.#received.toString("latin1"));
        if (answer !== undefined && isWhole(answer)) return answer;
        if (this.#ended) throw new Error(`no whole answer: ${this.#received.toString("latin1").slice(0, 500)}`);
        await this.#change();
      }
    } finally {
      clearTimeout(timer);
    }
  }

  /** Whatever came until the other side ended the connection. */
  async last(): Promise<RawAnswer | undefined> {
    while (!this.#ended) await this.#change();
    return parse(this.#received.toString("latin1"));
  }

  /** Goes away without a word. */
  destroy(): void {
    this.#socket.destroy();
  }

  #change(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    return promise;
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }
}

function parse(text: string): RawAnswer | undefined {
  const end = text.indexOf("\r\n\r\n");
  if (end === -1) return undefined;
  const [statusLine = "", ...lines] = text.slice(0, end).split("\r\n");
  const headers = new Headers(
    lines.map((line) => [line.split(":", 1)[0] ?? "", line.slice(line.indexOf(":") + 1).trim()]),
  );
  return { status: Number(statusLine.split(" ")[1]), headers, body: text.slice(end + 4) };
}

function isWhole({ headers, body }: RawAnswer): boolean {
  return body.length >= Number(headers.get("content-length") ?? 0);
}
