/**
 * A subscriber that stops reading: over TCP or a Unix socket, it opens the stream and then leaves what comes in the
 * kernel's buffers, until it wakes. It reads frames as `Subscriber` does, but from the bare socket.
 */

import { connect, type Socket } from "node:net";
import { type EventFrame, readFrame } from "./event-frame.ts";
import { until } from "./server-wait.ts";
import type { Channel } from "./subscriber.ts";

const handshake =
  "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

export class SleepingSubscriber implements Disposable {
  readonly frames: EventFrame[] = [];
  readonly #socket: Socket;
  readonly #channel: Channel;
  #received: Buffer = Buffer.alloc(0);
  /** The text of a block that is not whole yet. */
  #rest: Buffer = Buffer.alloc(0);
  #hasHead = false;
  hasEnded = false;

  private constructor(target: string, channel: Channel) {
    const url = new URL(target);
    this.#channel = channel;
    this.#socket = url.protocol === "unix:" ? connect(url.pathname) : connect(Number(url.port), url.hostname);
    this.#socket.on("data", (data: Buffer) => this.#take(data));
    this.#socket.on("close", () => {
      this.hasEnded = true;
    });
    this.#socket.on("error", () => {});
    const [path, extra] = channel === "websocket" ? ["/ws", handshake] : ["", "Accept: text/event-stream\r\n"];
    this.#socket.write(`GET /v1/events${path} HTTP/1.1\r\nHost: ${url.host || "localhost"}\r\n${extra}\r\n`);
  }

  /** Opens the stream and sleeps. @param target `unix:///path` or `http://host:port`. */
  static async open(target: string, channel: Channel): Promise<SleepingSubscriber> {
    const subscriber = new SleepingSubscriber(target, channel);
    await until("the stream opens", () => subscriber.frames.length > 0);
    subscriber.#socket.pause();
    return subscriber;
  }

  wake(): void {
    this.#socket.resume();
  }

  #take(data: Buffer): void {
    this.#received = this.#received.length === 0 ? data : Buffer.concat([this.#received, data]);
    if (!this.#hasHead) {
      const end = this.#received.indexOf("\r\n\r\n");
      if (end === -1) return;
      this.#hasHead = true;
      this.#received = this.#received.subarray(end + 4);
    }
    while (this.#channel === "websocket" ? this.#takeFrame() : this.#takeChunk());
  }

  /** An unmasked frame (RFC 6455 5.2). */
  #takeFrame(): boolean {
    const bytes = this.#received;
    const [first, short] = bytes;
    if (first === undefined || short === undefined) return false;
    const [begin, size] = short < 126 ? [2, short] : [4, bytes.length < 4 ? 65_536 : bytes.readUInt16BE(2)];
    if (bytes.length < begin + size) return false;
    if (first === 0x81) this.frames.push(readFrame(bytes.toString("utf8", begin, begin + size)));
    this.#received = bytes.subarray(begin + size);
    return true;
  }

  /** A chunk of the body (RFC 9112 7.1), which may end anywhere in an event. */
  #takeChunk(): boolean {
    const end = this.#received.indexOf("\r\n");
    if (end === -1) return false;
    const size = Number.parseInt(this.#received.toString("latin1", 0, end), 16);
    if (this.#received.length < end + 2 + size + 2) return false;
    this.#takeText(this.#received.subarray(end + 2, end + 2 + size));
    this.#received = this.#received.subarray(end + 2 + size + 2);
    return true;
  }

  #takeText(bytes: Buffer): void {
    const blocks = Buffer.concat([this.#rest, bytes]).toString("utf8").split("\n\n");
    this.#rest = Buffer.from(blocks.pop() ?? "");
    for (const block of blocks) {
      const data = /^data: (.*)$/m.exec(block)?.[1];
      if (data !== undefined) this.frames.push(readFrame(data));
    }
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }
}
