/** The events of one server as an async iterable that survives its restarts: it resumes where it stood. */

import { isPassing, isTensordError } from "../errors.ts";
import type { Transport } from "../http/transport.ts";
import type { EventOptions } from "../options.ts";
import { pause } from "../waiting.ts";
import { parseEvent, positionOf, type StreamOpened, type TensordEvent } from "./event.ts";
import { EventSocket } from "./event-socket.ts";

const firstPauseMs = 20;
const longestPauseMs = 5_000;

/** Iterate it once, with `for await`; leaving the loop closes the connection. */
export class EventStream implements AsyncIterable<TensordEvent> {
  readonly #transport: Transport;
  readonly #options: EventOptions;
  #after: string | undefined;

  constructor(transport: Transport, options: EventOptions) {
    this.#transport = transport;
    this.#options = options;
    this.#after = options.after;
  }

  /** Where the stream stands: pass it as `after` to go on from here later. Undefined before the server said so. */
  get after(): string | undefined {
    return this.#after;
  }

  /**
   * @throws TensordError `server-unavailable` if the server was never reached; `closed` with the client;
   *   `validation-failed` and what else the server refuses; the signal's reason
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<TensordEvent, void, undefined> {
    const { signal, reconnect = true } = this.#options;
    const { closed, wasThere, retryMs } = this.#transport;
    const stopped = AbortSignal.any(signal === undefined ? [closed] : [closed, signal]);
    // A server that was there before is waited for; one that took this stream before, for as long as it takes.
    const beganAt = performance.now();
    let giveUpAt = beganAt + (wasThere ? retryMs : 0);
    let hasBegun = false;
    let pauseMs = firstPauseMs;
    for (;;) {
      try {
        for await (const event of this.#connection(stopped)) {
          giveUpAt = Number.POSITIVE_INFINITY;
          hasBegun = true;
          if (event.type === "tensord.stream.opened") continue;
          pauseMs = firstPauseMs;
          yield event;
        }
        if (!reconnect) return;
      } catch (error) {
        // One that refuses is there.
        if (isTensordError(error) && error.status !== undefined) giveUpAt = Math.max(giveUpAt, beganAt + retryMs);
        const mayBegin = isPassing(error) && (reconnect || !hasBegun);
        if (!mayBegin || performance.now() + pauseMs > giveUpAt) throw error;
      }
      await pause(pauseMs, { signal: stopped });
      pauseMs = Math.min(2 * pauseMs, longestPauseMs);
    }
  }

  /** The events of one connection, until the server ends it in a way that is worth resuming. */
  async *#connection(stopped: AbortSignal): AsyncGenerator<TensordEvent | StreamOpened, void, undefined> {
    stopped.throwIfAborted();
    const socket = new EventSocket(this.#transport, this.#path());
    const stop = () => socket.close(stopped.reason);
    stopped.addEventListener("abort", stop);
    try {
      for (let frame = await socket.next(); frame !== undefined; frame = await socket.next()) {
        const event = parseEvent(frame);
        this.#after = positionOf(event) ?? this.#after;
        yield event;
      }
    } finally {
      stopped.removeEventListener("abort", stop);
      socket.close();
    }
  }

  #path(): string {
    const { model, session, types } = this.#options;
    const query = new URLSearchParams();
    if (this.#after !== undefined) query.set("after", this.#after);
    if (model !== undefined) query.set("model", model);
    if (session !== undefined) query.set("session", session);
    if (types !== undefined) query.set("types", types.join());
    return `/v1/events/ws?${query}`;
  }
}
