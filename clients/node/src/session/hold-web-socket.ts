/** The WebSocket that holds a session. It keeps no process alive once it is open. */

import type WebSocket from "ws";
import { TensordError } from "../errors.ts";
import type { Endpoint } from "../http/endpoint.ts";
import { openWebSocket, readRefusal, toUnreachable } from "../http/web-socket.ts";
import type { HoldConnection } from "./hold-connection.ts";
import type { Report } from "./reports.ts";

const action = "hold the session";
/** Of what lets no WebSocket through: a proxy, or the server, to which the proxy did not pass the upgrade on. */
const unfitStatuses: readonly (number | undefined)[] = [400, 405, 426, 501];

/** Whether no WebSocket comes through to the server, however often it is tried. */
export function isUnfit(error: unknown): boolean {
  return error instanceof TensordError && (error.code === "feature-unavailable" || error.cause instanceof Unfit);
}

class Unfit extends Error {}

/**
 * @param isAwaited somebody waits for it, so that the process has something to do.
 * @throws TensordError `session-not-found`, `unauthorized`, `server-unavailable`; one that `isUnfit`
 */
export function openHoldWebSocket(endpoint: Endpoint, session: string, isAwaited: boolean): Promise<HoldConnection> {
  return new Promise((resolve, reject) => {
    const { webSocket, connection } = openWebSocket(endpoint, `/v1/sessions/${session}/hold`);
    if (!isAwaited) connection.unref();
    const hold = new WebSocketHold(webSocket);
    webSocket.on("open", () => {
      connection.unref();
      resolve(hold);
    });
    webSocket.on("error", (error) => reject(toUnreachable(action, error)));
    webSocket.on("unexpected-response", (_, response) => {
      void readRefusal(response, action).then((error) => {
        reject(unfitStatuses.includes(response.statusCode) ? toUnfit(error) : error);
        webSocket.terminate();
      });
    });
  });
}

function toUnfit(error: TensordError): TensordError {
  return new TensordError("server-unavailable", `Cannot hold the session by a WebSocket: ${error.message}`, {
    hint: 'have the proxy pass on upgrades, or connect({ session: { hold: "broker" } })',
    cause: new Unfit(error.message, { cause: error }),
  });
}

class WebSocketHold implements HoldConnection {
  readonly closed: Promise<void>;
  readonly #socket: WebSocket;
  #tellsMakers = false;

  constructor(socket: WebSocket) {
    this.#socket = socket;
    this.closed = new Promise((resolve) => socket.on("close", () => resolve()));
    // One from before there was a maker's byte closes on a report that says who is one.
    socket.on("upgrade", ({ headers }) => {
      this.#tellsMakers = String(headers["tensord-reports"] ?? "").includes("maker");
    });
  }

  get tellsMakers(): boolean {
    return this.#tellsMakers;
  }

  get hasUnsent(): boolean {
    return this.#socket.bufferedAmount > 0;
  }

  send(reports: readonly Report[]): void {
    for (const report of reports) this.#socket.send(JSON.stringify(report), ignore);
  }

  close(): void {
    this.#socket.terminate();
  }
}

/** What is lost with its connection is told again on the next one. */
function ignore(): void {}
