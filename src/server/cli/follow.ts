/**
 * The server's events as they happen, for as long as the caller wants: through cut connections and restarts of the
 * server, each time from where the last connection broke off. It prints nothing.
 */

import type { z } from "@hono/zod-openapi";
import { createParser } from "eventsource-parser";
import { TensordError } from "../../memory/error.ts";
import type * as events from "../../routes/schemas/event.ts";
import { openedType, streamTypes } from "../../routes/schemas/event-data.ts";
import type { Api } from "./api.ts";
import { pause } from "./until-stopped.ts";

export type Event = z.infer<typeof events.CloudEvent>;

export interface FollowOptions {
  /** The query's `after`, `model` and `types`; without `after` it begins with the next event. */
  readonly query: URLSearchParams;
  readonly signal: AbortSignal;
  /** Hears once of each outage, with the id of the last event before it. */
  readonly onCut: (after: string) => void;
  readonly onResumed: () => void;
  /** A connection without a byte for this long is dead: the server says something every 15 s. */
  readonly silenceMs?: number;
}

const silenceMs = 45_000;
const firstPauseMs = 50;
const longestPauseMs = 2000;
/** No event is as long: they come without their tensors. */
const eventCharacters = 2 ** 20;

/** Ends when `signal` aborts. @throws TensordError if the first connection fails, or the server refuses a later one. */
export async function* follow(api: Api, options: FollowOptions): AsyncGenerator<Event> {
  const { signal, onCut, onResumed } = options;
  let after: string | undefined;
  let isCut = false;
  for (let pauseMs = firstPauseMs; !signal.aborted; pauseMs = Math.min(2 * pauseMs, longestPauseMs)) {
    try {
      for await (const event of connect(api, options, after)) {
        after = positionOf(event) ?? after;
        if (isCut) onResumed();
        isCut = false;
        if (event.type === openedType) continue;
        pauseMs = firstPauseMs;
        yield event;
      }
    } catch (error) {
      if (!signal.aborted && (after === undefined || !isCutShort(error))) throw error;
    }
    if (signal.aborted) return;
    if (after === undefined) throw noStream("it ended before it began");
    if (!isCut) onCut(after);
    isCut = true;
    await pause(pauseMs, signal);
  }
}

/** Where a stream or a page stands behind the event; undefined of what a later server's stream may say of itself. */
export function positionOf({ type, id, data }: Event): string | undefined {
  if (!type.startsWith(streamTypes)) return id;
  return typeof data.after === "string" ? data.after : undefined;
}

/** A server that is away, or leaving, comes back. One that says no is believed. */
function isCutShort(error: unknown): boolean {
  return error instanceof TensordError && (error.code === "io-error" || error.code === "shutting-down");
}

/** The events of one connection. */
async function* connect(api: Api, options: FollowOptions, after: string | undefined): AsyncGenerator<Event> {
  const silence = new AbortController();
  const timer = setTimeout(() => silence.abort(), options.silenceMs ?? silenceMs);
  const headers = { accept: "text/event-stream", ...(after !== undefined && { "last-event-id": after }) };
  const signal = AbortSignal.any([options.signal, silence.signal]);
  const arrived: string[] = [];
  let isTooLong = false;
  const parser = createParser({
    maxBufferSize: eventCharacters,
    onEvent: ({ data }) => arrived.push(data),
    onError: ({ type }) => {
      isTooLong ||= type === "max-buffer-size-exceeded";
    },
  });
  try {
    for await (const text of api.open(`/v1/events?${options.query}`, headers, signal)) {
      timer.refresh();
      parser.feed(text);
      for (const data of arrived.splice(0)) yield parseEvent(data);
      if (isTooLong) throw noStream(`one is longer than ${eventCharacters} characters`);
    }
  } finally {
    clearTimeout(timer);
  }
}

function parseEvent(data: string): Event {
  try {
    return JSON.parse(data) as Event;
  } catch (cause) {
    if (cause instanceof SyntaxError) throw noStream("one is no JSON");
    throw cause;
  }
}

function noStream(state: string): TensordError {
  return new TensordError("internal", `Cannot follow the events: ${state}`, { hint: "Is this a tensord server?" });
}
