/** A client's hold on its session: the WebSocket, what came over it, and how it ended. */

import { until } from "../../harness/app.ts";
import type { Session } from "./sessions.ts";

export class Hold implements Disposable {
  readonly #socket: WebSocket;
  /** Resolves with the code once the connection is gone. */
  readonly closed: Promise<number>;
  /** What the server sent, which should be nothing. */
  readonly frames: unknown[] = [];

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    const { promise, resolve } = Promise.withResolvers<number>();
    this.closed = promise;
    socket.addEventListener("close", ({ code }) => resolve(code));
    socket.addEventListener("message", ({ data }) => this.frames.push(data));
  }

  /** @param url the server's, `http:` or `ws+unix:`. */
  static async open(url: string, { id }: Pick<Session, "id">): Promise<Hold> {
    const socket = new WebSocket(`${url.replace("http:", "ws:")}/v1/sessions/${id}/hold`);
    const hold = new Hold(socket);
    await until("the session is held", () => {
      if (socket.readyState > WebSocket.OPEN) throw new Error("the server refused the hold");
      return socket.readyState === WebSocket.OPEN;
    });
    return hold;
  }

  /** Objects go as JSON, text and bytes as they are. */
  send(frame: object | string): void {
    this.#socket.send(typeof frame === "string" || frame instanceof Uint8Array ? frame : JSON.stringify(frame));
  }

  close(): void {
    this.#socket.close();
  }

  [Symbol.dispose](): void {
    this.#socket.close();
  }
}
