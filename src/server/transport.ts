/**
 * The two ways in, loopback TCP and the Unix socket, over one app: guards, counts, keeps slow requests open, and stops
 * in order. It knows no route.
 */

import { chmodSync, lstatSync, unlinkSync } from "node:fs";
import { connect } from "node:net";
import type { OpenAPIHono } from "@hono/zod-openapi";
import { TensordError } from "../memory/error.ts";
import { limits } from "../memory/limits.ts";
import { raiseLimit } from "../memory/os/descriptors.ts";
import { checkSocketPath } from "../memory/storage/instance-directory.ts";
import type { Environment, SocketProtocol, Traffic } from "../routes/environment.ts";
import { toProblem, toProblemResponse } from "../routes/problem.ts";
import { secure } from "./access/secure.ts";
import type { Connections } from "./connections.ts";
import { drain } from "./drain.ts";
import { Exchange, type Exchanges } from "./exchange.ts";
import { createHostGuard } from "./guard.ts";
import { boundSocketBuffers } from "./socket-buffers.ts";
import { toWholeUrl } from "./whole-url.ts";

type Server = Bun.Server<SocketProtocol>;
type Guard = (headers: Headers) => void;

export class Transport {
  readonly #app: OpenAPIHono<Environment>;
  readonly #shared: Exchanges;
  readonly #onUnexpected: (error: unknown, requestId: string) => void;
  readonly #connections: Connections;
  readonly #servers: Server[] = [];
  readonly #stopping = new AbortController();
  readonly #sockets: { readonly path: string; readonly ino: bigint }[] = [];

  constructor(
    app: OpenAPIHono<Environment>,
    traffic: Traffic,
    onUnexpected: (error: unknown, requestId: string) => void,
    connections: Connections,
  ) {
    this.#app = app;
    this.#connections = connections;
    this.#shared = { traffic, connections, streams: 0 };
    this.#onUnexpected = onUnexpected;
  }

  /**
   * Listens on loopback TCP, and answers to loopback names and to `allowedHosts`.
   * @returns the URL, with the port that 0 became. @throws TensordError `io-error`.
   */
  listenTcp(host: string, port: number, allowedHosts: readonly string[] = []): string {
    let guard: Guard = () => {};
    const server = this.#listen(`${host}:${port}`, () =>
      Bun.serve({ hostname: host, port, ...this.#options((headers) => guard(headers)) }),
    );
    this.#connections.add(server, "tcp");
    boundSocketBuffers();
    guard = createHostGuard(host, server.port ?? port, allowedHosts);
    return `http://${host.includes(":") ? `[${host}]` : host}:${server.port}`;
  }

  /** Listens on a Unix socket of mode 0660. A stale file is removed, a living one refused. @throws TensordError. */
  async listenUnix(path: string): Promise<string> {
    checkSocketPath(path);
    await removeStaleSocket(path);
    // The mode must be right from birth: between bind and chmod anybody could connect.
    const umask = process.umask(0o117);
    try {
      // Bun's types deny Unix sockets an idle time; Bun itself has one, of 10 s.
      const options = { unix: path, ...this.#options(() => {}) } as Bun.Serve.Options<SocketProtocol>;
      this.#connections.add(
        this.#listen(path, () => Bun.serve(options)),
        "unix",
      );
    } finally {
      process.umask(umask);
    }
    chmodSync(path, 0o660);
    this.#sockets.push({ path, ino: lstatSync(path, { bigint: true }).ino });
    return `unix://${path}`;
  }

  #listen(where: string, serve: () => Server): Server {
    try {
      const server = serve();
      this.#servers.push(server);
      return server;
    } catch (error) {
      const { code = "unknown" } = error as NodeJS.ErrnoException;
      const inUse = code === "EADDRINUSE";
      throw new TensordError(
        "io-error",
        `Cannot listen on ${where}: ${inUse ? "the address is in use" : (error as Error).message}`,
        {
          errno: code,
          hint: inUse
            ? "Stop what listens there, choose another TENSORD_PORT (0 takes a free one), or set it empty for no TCP."
            : "Check TENSORD_HOST, TENSORD_PORT and TENSORD_SOCKET.",
        },
        { cause: error },
      );
    }
  }

  #options(guard: Guard) {
    return {
      // Each write begins it anew, even where `keepOpen` took it away.
      idleTimeout: limits.idleSeconds,
      // Bun's own limit answers an empty 413; the app's says what to do.
      maxRequestBodySize: Number.MAX_SAFE_INTEGER,
      fetch: (request: Request, server: Server) => this.#handle(request, server, guard),
      error: (error: unknown) => secure(this.#toProblemResponse(error)),
      websocket: {
        maxPayloadLength: limits.socketFrameBytes,
        // A stopped process answers no ping, and is not gone for that. Who does not read events is closed by another limit.
        idleTimeout: 0,
        open: (socket: Bun.ServerWebSocket<SocketProtocol>) => socket.data.open(socket),
        message: (socket: Bun.ServerWebSocket<SocketProtocol>, message: string | Buffer) =>
          socket.data.message(String(message)),
        drain: (socket: Bun.ServerWebSocket<SocketProtocol>) => socket.data.drain(),
        // A peer that is gone, or has reset the connection, is 1006 as well, but gives no reason.
        close: (socket: Bun.ServerWebSocket<SocketProtocol>, code: number, reason: string) =>
          socket.data.closed(code === 1006 && reason !== "" ? "server" : "peer"),
      },
    };
  }

  async #handle(request: Request, server: Server, guard: Guard): Promise<Response | undefined> {
    this.#shared.traffic.requests += 1;
    using exchange = new Exchange(this.#shared, server, request);
    const asked = toAsked(request);
    const response = secure(await this.#answer(asked, exchange, guard));
    // Bun wants no answer for a request that has become a socket.
    if (exchange.isUpgraded) return undefined;
    if (response.status >= 400 && endsConnection(request)) await drain(asked.body, this.#stopping.signal);
    // Bun sends the head and opens a file in the turn in which it gets the answer.
    if (exchange.begun !== undefined) {
      const raised = raiseLimit("long");
      setImmediate(() => raised?.[Symbol.dispose]());
      setImmediate(exchange.begun);
    }
    return response;
  }

  async #answer(asked: Request, exchange: Exchange, guard: Guard): Promise<Response> {
    try {
      guard(asked.headers);
      return await this.#app.fetch(asked, exchange);
    } catch (error) {
      return this.#toProblemResponse(error, exchange);
    }
  }

  #toProblemResponse(error: unknown, exchange?: Exchange): Response {
    const id = crypto.randomUUID();
    return toProblemResponse(
      toProblem(error, id, (cause) => this.#onUnexpected(cause, id)),
      exchange,
    );
  }

  /** Takes no new connection, waits for requests under way up to `graceMs`, then closes what is left. */
  async stop(graceMs: number): Promise<void> {
    this.#stopping.abort();
    for (const server of this.#servers) void server.stop();
    const deadline = performance.now() + graceMs;
    const streamDeadline = performance.now() + limits.streamEndMs;
    for (let now = 0; now < deadline; now = performance.now()) {
      const pending = this.#servers.reduce((sum, server) => sum + server.pendingRequests, 0);
      if (pending === 0 || (pending <= this.#shared.streams && now > streamDeadline)) break;
      await Bun.sleep(limits.stopPollMs);
    }
    // What was answered last still has to leave the socket's buffer.
    await Bun.sleep(0);
    await Promise.all(this.#servers.map((server) => server.stop(true)));
    for (const { path, ino } of this.#sockets) {
      if (lstatSync(path, { bigint: true, throwIfNoEntry: false })?.ino === ino) unlinkSync(path);
    }
  }
}

/** What the app is asked: HEAD as GET, so that its length is known, and always with a whole URL. */
function toAsked(request: Request): Request {
  const url = toWholeUrl(request);
  if (request.method === "HEAD")
    return new Request(url, { method: "GET", headers: request.headers, signal: request.signal });
  return url === request.url ? request : new Request(url, request);
}

/**
 * Whether the connection is closed as soon as the answer is sent, whatever the sender is still at. Of HTTP/1.0, whose every
 * connection ends, one with a Host and without Connection cannot be told from HTTP/1.1.
 */
function endsConnection({ headers }: Request): boolean {
  return headers.get("host") === null || /(^|,)\s*close\s*(,|$)/i.test(headers.get("connection") ?? "");
}

/** Removes a socket file that nobody listens on. @throws TensordError `io-error` if it lives or is no socket. */
async function removeStaleSocket(path: string): Promise<void> {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return;
  if (!stat.isSocket()) {
    throw new TensordError("io-error", `Cannot listen on ${path}: a file that is no socket stands there`, {
      hint: "Remove it, or choose another TENSORD_SOCKET.",
    });
  }
  if (await isListening(path)) {
    throw new TensordError("io-error", `Cannot listen on ${path}: another server listens there`, {
      hint: "Stop it, or choose another TENSORD_SOCKET or TENSORD_INSTANCE.",
    });
  }
  unlinkSync(path);
}

function isListening(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const answer = (value: boolean) => {
      socket.destroy();
      resolve(value);
    };
    socket.once("connect", () => answer(true));
    socket.once("error", () => answer(false));
  });
}
