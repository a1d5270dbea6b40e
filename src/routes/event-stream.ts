/** A subscriber over HTTP: Server-Sent Events, sent as fast as the peer reads them and no faster. */

import type { EventCursor, EventGap } from "../memory/events/event-cursor.ts";
import type { Subscriber } from "../memory/events/event-feeder.ts";
import type { KeptEvent } from "../memory/events/event-log.ts";
import { limits } from "../memory/limits.ts";
import type { Store } from "../memory/state/store.ts";
import type { Environment } from "./environment.ts";
import { positionBehind, toGapText, toOpenedText } from "./to-event.ts";

type Connection = Pick<Environment["Bindings"], "beginStream" | "endSoon">;
type Controller = ReadableStreamDefaultController<Uint8Array>;

const encoder = new TextEncoder();

export class EventStream implements Subscriber {
  readonly cursor: EventCursor;
  readonly #store: Store;
  readonly #connection: Connection;
  readonly #revoked: AbortSignal;
  #release: (() => void) | undefined;
  #controller: Controller | undefined;
  #keepAlive: Timer | undefined;

  /** @param revoked ends it. */
  constructor(store: Store, cursor: EventCursor, connection: Connection, revoked: AbortSignal) {
    this.#store = store;
    this.cursor = cursor;
    this.#connection = connection;
    this.#revoked = revoked;
  }

  toResponse(): Response {
    const source = {
      start: (controller: Controller) => this.#start(controller),
      pull: () => this.#store.feeder.resume(this),
      cancel: () => this.#forget(),
    };
    const strategy = new ByteLengthQueuingStrategy({ highWaterMark: limits.eventStreamBytes });
    const headers = { "content-type": "text/event-stream", "cache-control": "no-store", "x-accel-buffering": "no" };
    return new Response(new ReadableStream(source, strategy), { headers });
  }

  #start(controller: Controller): void {
    this.#controller = controller;
    this.#write(`retry: 1000\n${toBlock(this.cursor.position, toOpenedText(this.#store, this.cursor.position))}`);
    this.#keepAlive = setInterval(() => this.#comment(), limits.eventKeepAliveMs);
    this.#release = this.#connection.beginStream?.();
    this.#store.stopping.addEventListener("abort", this.#end);
    this.#revoked.addEventListener("abort", this.#end);
    this.#store.feeder.add(this);
  }

  send(found: KeptEvent | EventGap): boolean {
    const isEvent = "text" in found;
    const position = isEvent ? found.sequence : positionBehind(found);
    this.#write(toBlock(position, isEvent ? found.text : toGapText(this.#store, found)));
    return (this.#controller?.desiredSize ?? 0) > 0;
  }

  endStalled(): void {
    this.#end();
    // Its peer may go on not reading.
    this.#connection.endSoon?.();
  }

  /** To a peer that does not read it would only pile up. */
  #comment(): void {
    if ((this.#controller?.desiredSize ?? 0) === limits.eventStreamBytes) this.#write(": keep-alive\n\n");
  }

  #write(text: string): void {
    this.#controller?.enqueue(encoder.encode(text));
  }

  readonly #end = () => {
    this.#controller?.close();
    this.#forget();
  };

  #forget(): void {
    this.#controller = undefined;
    clearInterval(this.#keepAlive);
    this.#store.stopping.removeEventListener("abort", this.#end);
    this.#revoked.removeEventListener("abort", this.#end);
    this.#store.feeder.remove(this);
    // A stop that ended it does not wait until its peer has read the rest.
    if (!this.#store.stopping.aborted) this.#release?.();
  }
}

/** Its `id` comes back as `Last-Event-ID`, so it is the position behind the frame: of an event, its number. */
function toBlock(position: number, text: string): string {
  return `id: ${position}\ndata: ${text}\n\n`;
}
