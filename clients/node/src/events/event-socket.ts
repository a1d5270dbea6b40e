/**
 * One WebSocket of events, as a queue of frames with a bound: past it the socket is not read, so that the server feels a
 * slow consumer instead of this process's memory. It does not reconnect.
 */

import type { IncomingMessage } from "node:http";
import type WebSocket from "ws";
import { TensordError } from "../errors.ts";
import type { Transport } from "../http/transport.ts";
import { openWebSocket, readRefusal, toUnreachable } from "../http/web-socket.ts";

/** Frames that wait for the consumer: the socket pauses at the first bound and goes on at the second. */
const pauseAt = 256;
const resumeAt = 64;

const action = "get events from tensord";

/** How a server ends a stream that is worth resuming: an order, a restart, a lost connection, a consumer too slow. */
const resumable = new Set([1000, 1001, 1005, 1006, 1011, 1012, 1013]);

export class EventSocket {
  readonly #socket: WebSocket;
  readonly #frames: string[] = [];
  #wake: () => void = () => undefined;
  #isEnded = false;
  #failure: unknown;

  constructor(transport: Transport, path: string) {
    this.#socket = openWebSocket(transport.endpoint, path, transport.authorization()).webSocket;
    this.#socket.on("message", (data) => this.#change(() => this.#push(String(data))));
    this.#socket.on("unexpected-response", (_, response) => this.#refuse(response));
    // "close" follows; before "open" this is all that says why.
    this.#socket.on("error", (error) => this.#fail(toUnreachable(action, error)));
    this.#socket.on("close", (code, reason) => this.#end(code, String(reason)));
  }

  /**
   * The next frame, or undefined when the server ended the stream in a way that is worth resuming.
   * @throws TensordError `server-unavailable` if the connection failed, else what the server refused
   */
  async next(): Promise<string | undefined> {
    while (this.#frames.length === 0 && !this.#isEnded) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const frame = this.#frames.shift();
    if (this.#frames.length === resumeAt) this.#socket.resume();
    if (frame === undefined && this.#failure !== undefined) throw this.#failure;
    return frame;
  }

  /** Ends it at once; `next` fails with `reason` then. */
  close(reason?: unknown): void {
    this.#change(() => {
      this.#frames.length = 0;
      this.#failure = reason;
      this.#isEnded = true;
    });
    this.#socket.terminate();
  }

  #push(frame: string): void {
    if (this.#isEnded) return;
    this.#frames.push(frame);
    if (this.#frames.length >= pauseAt) this.#socket.pause();
  }

  /** An HTTP answer instead of a stream: a problem says why. */
  #refuse(response: IncomingMessage): void {
    void readRefusal(response, action).then((error) => {
      this.#fail(error);
      this.#socket.terminate();
    });
  }

  #fail(failure: unknown): void {
    this.#change(() => {
      this.#failure ??= failure;
      this.#isEnded = true;
    });
  }

  #end(code: number, reason: string): void {
    if (!resumable.has(code)) {
      const detail = `Cannot go on with the events: the server closed them with ${code} (${reason || "no reason"})`;
      this.#fail(new TensordError("server-fault", detail));
    }
    this.#change(() => (this.#isEnded = true));
  }

  #change(change: () => void): void {
    change();
    this.#wake();
  }
}
