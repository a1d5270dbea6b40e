/**
 * Holds one session: a WebSocket that lives as long as this process does, so that the server sees the process end, however
 * it ends. It connects again after a restart of the server, and keeps no process alive.
 */

import type WebSocket from "ws";
import { isUnavailable } from "../errors.ts";
import type { Endpoint } from "../http/endpoint.ts";
import { openWebSocket, readRefusal, unreachable } from "../http/web-socket.ts";
import { pause } from "../waiting.ts";

const firstPauseMs = 20;
const longestPauseMs = 1_000;
const action = "hold the session";

export interface HoldOptions {
  /** The server ends the session so long after the last hold that it closed. */
  readonly ttlMs: number;
  /** What to say first on each connection. */
  readonly greet: () => Iterable<string>;
  /** The session is no more. */
  readonly over: () => void;
}

export class Hold {
  readonly #endpoint: Endpoint;
  readonly #path: string;
  readonly #options: HoldOptions;
  #socket: WebSocket | undefined;
  #isClosed = false;

  constructor(endpoint: Endpoint, session: string, options: HoldOptions) {
    this.#endpoint = endpoint;
    this.#path = `/v1/sessions/${session}/hold`;
    this.#options = options;
  }

  /** Connects for the first time, and tries for so long. @throws TensordError `server-unavailable`, `session-not-found` */
  async open(patienceMs: number): Promise<void> {
    await this.#connect(performance.now() + patienceMs, true);
  }

  /** Says it now if it can; what is still true at the next connection, `greet` says there. */
  say(text: string): void {
    this.#socket?.send(text, ignore);
  }

  /** Lets go; the server ends the session then. Safe to call twice. */
  close(): void {
    this.#isClosed = true;
    this.#socket?.terminate();
  }

  /** @param isAwaited somebody waits for it, so that the process has something to do. */
  async #connect(giveUpAt: number, isAwaited: boolean): Promise<void> {
    const longestMs = Math.min(longestPauseMs, this.#options.ttlMs / 4);
    for (let pauseMs = firstPauseMs; !this.#isClosed; pauseMs = Math.min(2 * pauseMs, longestMs)) {
      try {
        return await this.#connectOnce(isAwaited);
      } catch (error) {
        if (!isUnavailable(error) || performance.now() + pauseMs > giveUpAt) throw error;
        await pause(pauseMs, { ref: isAwaited });
      }
    }
  }

  #connectOnce(isAwaited: boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      const { webSocket, connection } = openWebSocket(this.#endpoint, this.#path);
      if (!isAwaited) connection.unref();
      webSocket.on("open", () => {
        connection.unref();
        webSocket.on("close", () => this.#lost());
        if (this.#isClosed) webSocket.terminate();
        this.#socket = webSocket;
        for (const text of this.#options.greet()) this.say(text);
        resolve();
      });
      webSocket.on("error", (error) => reject(unreachable(action, error.message)));
      webSocket.on("unexpected-response", (_, response) => {
        void readRefusal(response, action).then((error) => {
          reject(error);
          webSocket.terminate();
        });
      });
    });
  }

  #lost(): void {
    this.#socket = undefined;
    if (!this.#isClosed) this.#connect(Number.POSITIVE_INFINITY, false).catch(() => this.#options.over());
  }
}

/** A report that is lost with its connection is made again on the next one. */
function ignore(): void {}
