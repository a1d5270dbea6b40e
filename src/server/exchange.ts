/** What routes may say of a request to its transport while it is answered. One object: a function for each would be made for every request. */

import { TensordError } from "../memory/error.ts";
import { limits } from "../memory/limits.ts";
import type { Environment, SocketProtocol, Traffic } from "../routes/environment.ts";
import type { Asking, Connections } from "./connections.ts";

type Bindings = Required<Environment["Bindings"]>;

/** What all exchanges of a transport share. */
export interface Exchanges {
  readonly traffic: Traffic;
  readonly connections: Connections;
  /** Answers under way that the stop itself ends. */
  streams: number;
}

/** To be asked by its name, as `exchange.sent(bytes)`: a method that is taken off it knows nothing. */
export class Exchange implements Bindings, Disposable {
  readonly #shared: Exchanges;
  readonly #server: Bun.Server<SocketProtocol>;
  readonly #request: Request;
  readonly #asking: Asking;
  /** To be called once the answer is being sent, or will not be. */
  begun: (() => void) | undefined;
  /** Whether the request has become a socket. */
  isUpgraded = false;

  constructor(shared: Exchanges, server: Bun.Server<SocketProtocol>, request: Request) {
    this.#shared = shared;
    this.#server = server;
    this.#request = request;
    this.#asking = shared.connections.ask(server, request);
  }

  sent(bytes: number): void {
    // Bun sends no body to HEAD.
    if (this.#request.method !== "HEAD") this.#shared.traffic.sentBytes += bytes;
  }

  onBegun(then: () => void): void {
    this.begun = then;
  }

  reading(end: (failure: TensordError) => void): Disposable {
    return this.#asking.reading(end);
  }

  stay(toWhat: string): void {
    this.#shared.connections.refuseIfCrowded(toWhat);
  }

  keepOpen(): void {
    this.#server.timeout(this.#request, 0);
  }

  endSoon(): void {
    this.#server.timeout(this.#request, limits.endSoonSeconds);
  }

  beginStream(): () => void {
    this.#shared.streams += 1;
    return () => {
      this.#shared.streams -= 1;
    };
  }

  upgrade(protocol: SocketProtocol): void {
    this.#shared.connections.refuseIfCrowded("open the WebSocket");
    const headers = {
      "sec-websocket-protocol": chooseSubprotocol(this.#request, protocol),
      ...protocol.headers,
    };
    this.isUpgraded = this.#server.upgrade(this.#request, { data: protocol, headers });
    if (!this.isUpgraded) throw noHandshake();
  }

  [Symbol.dispose](): void {
    this.#asking[Symbol.dispose]();
  }
}

/** What the client offers and `protocol` is, else none: left to itself the runtime chooses whatever is offered first. */
function chooseSubprotocol({ headers }: Request, { subprotocol = "" }: SocketProtocol): string {
  const offered = headers.get("sec-websocket-protocol")?.split(",") ?? [];
  return offered.some((name) => name.trim() === subprotocol) ? subprotocol : "";
}

function noHandshake(): TensordError {
  return new TensordError("upgrade-required", "Cannot open the WebSocket: the request is no whole handshake", {
    hint: "Send GET with a Sec-WebSocket-Key of 16 bytes in base64, as every WebSocket client does.",
  });
}
