/**
 * One that follows the events as clients do, over a WebSocket or Server-Sent Events, by TCP or a Unix socket: every frame
 * in the order in which it came, and how the stream ended. It never connects again by itself.
 */

import { type EventFrame, positionOf, readFrame, readServerSentEvents } from "./event-frame.ts";
import { until } from "./server-wait.ts";

export const channels = ["websocket", "server-sent-events"] as const;
export type Channel = (typeof channels)[number];

export interface Following {
  readonly after?: string;
  readonly model?: string;
  /** Prefixes, comma separated. */
  readonly types?: string;
}

/** How a stream ended: a WebSocket with a code; over HTTP with the body's end (0), or a broken connection (−1). */
export type StreamEnd = number;

export class Subscriber implements AsyncDisposable {
  readonly frames: EventFrame[] = [];
  readonly ended: Promise<StreamEnd>;
  #end: StreamEnd | undefined;
  readonly #close: () => void;

  private constructor(connect: (take: (frame: EventFrame) => void) => Connection) {
    const { close, ended } = connect((frame) => this.frames.push(frame));
    this.#close = close;
    this.ended = ended.then((end) => {
      this.#end = end;
      return end;
    });
  }

  /** @param target `unix:///path` or `http://host:port`. Resolves when the stream has said where it stands. */
  static async open(target: string, channel: Channel, following: Following = {}): Promise<Subscriber> {
    const connect = channel === "websocket" ? connectSocket : connectStream;
    const subscriber = new Subscriber((take) => connect(target, new URLSearchParams({ ...following }), take));
    await until("the stream opens", () => subscriber.frames.length > 0 || subscriber.#end !== undefined);
    const [first] = subscriber.frames;
    if (first?.type !== "tensord.stream.opened")
      throw new Error(`the stream began with ${first?.type}, and ended with ${subscriber.#end}`);
    return subscriber;
  }

  get isOpen(): boolean {
    return this.#end === undefined;
  }

  /** What to resume after: the position behind the last frame, whatever its type. */
  get lastId(): string {
    const last = this.frames.at(-1);
    if (last === undefined) throw new Error("nothing came");
    return positionOf(last);
  }

  /** The frames that are events of the server, not of the stream. */
  get events(): EventFrame[] {
    return this.frames.filter(({ type }) => !type.startsWith("tensord.stream."));
  }

  get gaps(): EventFrame[] {
    return this.frames.filter(({ type }) => type === "tensord.stream.gap");
  }

  /** Waits for the event, or one after it. @throws Error if the stream ends or the deadline passes before. */
  async untilId(id: string, deadlineMs?: number): Promise<void> {
    await until(
      `event ${id} comes`,
      () => {
        if (Number(this.lastId) >= Number(id)) return true;
        if (!this.isOpen) throw new Error(`the stream ended with ${this.#end} at ${this.lastId}, before ${id}`);
        return false;
      },
      deadlineMs,
    );
  }

  /** Goes away. */
  async close(): Promise<void> {
    this.#close();
    await this.ended;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

interface Connection {
  readonly close: () => void;
  readonly ended: Promise<StreamEnd>;
}

function connectSocket(target: string, query: URLSearchParams, take: (frame: EventFrame) => void): Connection {
  const url = target.startsWith("unix://") ? `ws+unix://${unixPath(target)}:` : target.replace("http:", "ws:");
  const { promise: ended, resolve } = Promise.withResolvers<StreamEnd>();
  const socket = new WebSocket(`${url}/v1/events/ws?${query}`);
  socket.onmessage = ({ data }) => take(readFrame(data));
  socket.onclose = ({ code }) => resolve(code);
  return { close: () => socket.close(), ended };
}

function connectStream(target: string, query: URLSearchParams, take: (frame: EventFrame) => void): Connection {
  const aborter = new AbortController();
  const unix = unixPath(target);
  const base = unix === undefined ? target : "http://localhost";
  async function follow(): Promise<StreamEnd> {
    try {
      const response = await fetch(`${base}/v1/events?${query}`, {
        headers: { accept: "text/event-stream" },
        signal: aborter.signal,
        ...(unix === undefined ? {} : { unix }),
      });
      if (response.status !== 200 || response.body === null) throw new Error(`answered ${response.status}`);
      for await (const frame of readServerSentEvents(response.body)) take(frame);
      return 0;
    } catch (error) {
      if (error instanceof SyntaxError) throw error;
      return -1;
    }
  }
  return { close: () => aborter.abort(), ended: follow() };
}

/** The path of a `unix://` URL, or undefined. */
function unixPath(target: string): string | undefined {
  return target.startsWith("unix://") ? target.slice("unix://".length) : undefined;
}
