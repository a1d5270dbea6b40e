/** The live stream of changes: pages and Server-Sent Events over HTTP, and the WebSocket. All read from one kept ring. */

import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { TensordError } from "../memory/error.ts";
import { EventCursor, type EventGap } from "../memory/events/event-cursor.ts";
import type { EventTopic, KeptEvent } from "../memory/events/event-log.ts";
import { limits } from "../memory/limits.ts";
import { parseId } from "../memory/naming.ts";
import type { Store } from "../memory/state/store.ts";
import type { Caller } from "./access/caller.ts";
import { checkModel } from "./access/checks.ts";
import { isOwn, mayUse } from "./access/rights.ts";
import { answerPieces } from "./answer.ts";
import { Limit } from "./contract.ts";
import type { Environment, Services, Socket, SocketProtocol } from "./environment.ts";
import { EventStream } from "./event-stream.ts";
import { alwaysPossible, declareFailures } from "./problem.ts";
import { ModelName, SessionId } from "./schemas/common.ts";
import { EventPage } from "./schemas/event.ts";
import { toGapText, toOpenedText } from "./to-event.ts";

/** A number has 16 characters at most. The id of a `tensord.stream.*` has more, and is refused with what to pass instead. */
const afterCharacters = 64;

const filters = {
  after: z
    .string()
    .max(afterCharacters)
    .optional()
    .openapi({
      pattern: "^[0-9]{0,16}$",
      description:
        "The id of the last event that you have; of a `tensord.stream.*`, its `data.after`. Left out or empty: pages begin with the " +
        "oldest kept event, streams with the next.",
    }),
  model: ModelName.optional().openapi({ description: "Only events about this model and its regions." }),
  session: SessionId.optional().openapi({ description: "Only events about this session and its regions." }),
  types: z
    .string()
    .max(limits.eventTypes * (limits.eventTypeCharacters + 1))
    .optional()
    .openapi({ description: "Only types with one of these prefixes, comma separated.", example: "tensord.region." }),
};
const StreamQuery = z.object(filters);
/** The queries of routes that the document does not have. */
export const socketQueries = { "GET /v1/events/ws": StreamQuery };

const list = createRoute({
  operationId: "listEvents",
  method: "get",
  path: "/v1/events",
  tags: ["events"],
  summary: "Events that are kept, page by page; or all to come, as Server-Sent Events",
  description:
    "With `Accept: text/event-stream` it is a stream that never ends: first `tensord.stream.opened`, then every event after " +
    "`Last-Event-ID` (or `after`), then live. `/v1/events/ws` is the same as a WebSocket (asyncapi.yaml).",
  request: {
    query: z.object({ ...filters, limit: Limit }),
    headers: z.object({
      "last-event-id": z.string().optional().openapi({ description: "As `after`, and wins over it." }),
    }),
  },
  responses: {
    200: {
      description: "One page, or the stream.",
      content: {
        "application/json": { schema: EventPage },
        "text/event-stream": { schema: z.string().openapi({ description: "Each `data` line is a CloudEvent." }) },
      },
    },
    ...declareFailures(...alwaysPossible, "too-many-requests", "shutting-down"),
  },
});

export function defineEventRoutes(app: OpenAPIHono<Environment>, { store }: Services): void {
  app.openapi(list, (c) => {
    const { limit, after, ...filter } = c.req.valid("query");
    const caller = c.get("caller");
    // Both are read: a header that says nothing, as some clients send before their first event, hides no mistake.
    const asked = parseAfter(after);
    const from = parseAfter(c.req.valid("header")["last-event-id"]) ?? asked;
    if (wantsStream(c.req.header("accept"))) {
      store.refuseIfStopping();
      store.feeder.refuseIfFull();
      c.env?.stay?.("follow the events");
      c.env?.keepOpen?.();
      const stream = new EventStream(store, toCursor(store, caller, filter, from), c.env ?? {}, caller.revoked);
      // A stream is none of the bodies that the document types.
      return stream.toResponse() as never;
    }
    const cursor = toCursor(store, caller, filter, from ?? store.events.floor);
    const count = limit === undefined ? limits.listItemsDefault : Number(limit);
    const texts = [...take(store, cursor, count)];
    const body = `{"items":[${texts.join(",")}],"next_after":"${cursor.position}"}`;
    return answerPieces(c, [body], 200);
  });

  app.get("/v1/events/ws", (c) => {
    if (c.req.header("upgrade")?.toLowerCase() !== "websocket" || c.env?.upgrade === undefined) throw upgradeRequired();
    const query = StreamQuery.safeParse(c.req.query());
    if (!query.success) throw refused(`${query.error.issues[0]?.path.join(".")}: ${query.error.issues[0]?.message}`);
    const { after, ...filter } = query.data;
    const caller = c.get("caller");
    store.refuseIfStopping();
    store.feeder.refuseIfFull();
    c.env.upgrade(toProtocol(store, toCursor(store, caller, filter, parseAfter(after)), caller.revoked));
    return c.body(null);
  });
}

function* take(store: Store, cursor: EventCursor, count: number): Generator<string> {
  for (let taken = 0; taken < count && cursor.isBehind; ) {
    const found = cursor.next();
    if (found === undefined) continue;
    taken += 1;
    yield toFrame(store, found);
  }
}

export function toFrame(store: Store, found: KeptEvent | EventGap): string {
  return "text" in found ? found.text : toGapText(store, found);
}

/** What a subscriber's WebSocket does. It sends, and takes nothing. */
function toProtocol(store: Store, cursor: EventCursor, revoked: AbortSignal): SocketProtocol {
  let socket: Socket | undefined;
  const subscriber = {
    cursor,
    // −1: taken, and more than the peer reads now. 0: not taken, because the connection is gone.
    send: (found: KeptEvent | EventGap) => (socket?.send(toFrame(store, found)) ?? 0) > 0,
    endStalled: () => socket?.close(1013, "not read for too long; resume behind the last frame"),
  };
  const stop = () => socket?.close(1001, "the server is shutting down");
  const refuse = () => socket?.close(1008, "the token was taken away, or changed");
  return {
    // One event in JSON a frame is what CloudEvents' WebSocket binding calls so.
    subprotocol: "cloudevents.json",
    open(opened) {
      socket = opened;
      socket.send(toOpenedText(store, cursor.position));
      store.stopping.addEventListener("abort", stop);
      revoked.addEventListener("abort", refuse);
      store.feeder.add(subscriber);
    },
    message: () => socket?.close(1008, "this channel takes no messages"),
    drain: () => store.feeder.resume(subscriber),
    closed() {
      store.stopping.removeEventListener("abort", stop);
      revoked.removeEventListener("abort", refuse);
      store.feeder.remove(subscriber);
    },
  };
}

type Filters = { readonly [Name in "model" | "session" | "types"]?: string | undefined };

function toCursor(
  store: Store,
  caller: Caller,
  { model, session: id, types: prefixes }: Filters,
  after: number | undefined,
) {
  if (model !== undefined) checkModel(caller, model);
  const session = id === undefined ? undefined : parseId("ses_", id);
  if (id !== undefined && session === undefined) throw refused(`${JSON.stringify(id)} is no id of a session`);
  const types = prefixes?.split(",").filter((prefix) => prefix !== "");
  if (types !== undefined && types.length > limits.eventTypes)
    throw refused(`types has ${types.length} prefixes, want at most ${limits.eventTypes}`);
  return new EventCursor(store.events, { model, session, types, sees: toSees(caller) }, after);
}

/** Events about a session are its caller's, those about the server's memory everybody's. undefined: an administrator sees all. */
function toSees(caller: Caller): ((topic: EventTopic) => boolean) | undefined {
  if (caller.role === "admin") return undefined;
  return ({ model, session, createdBy = null }) =>
    model !== null ? mayUse(caller, model) : session === null || isOwn(caller, { createdBy });
}

function parseAfter(after: string | undefined): number | undefined {
  if (after === undefined || after === "") return undefined;
  const sequence = /^\d{1,16}$/.test(after) ? Number(after) : Number.NaN;
  if (Number.isSafeInteger(sequence)) return sequence;
  throw refused(`${JSON.stringify(after.slice(0, 80))} is no id of an event, want its decimal number`);
}

/** Whether a stream is asked for by name: `*` alone gets the page, which every client can read. */
function wantsStream(accept: string | undefined): boolean {
  return /(^|,)\s*text\/event-stream\s*(;|,|$)/i.test(accept ?? "");
}

function refused(state: string): TensordError {
  return new TensordError("validation-failed", `Cannot follow the events: ${state}`, {
    hint: "Pass the id of the last event that you have (of a tensord.stream.*: its data.after), or leave it out.",
  });
}

function upgradeRequired(): TensordError {
  return new TensordError("upgrade-required", "Cannot follow the events here: the request is no WebSocket handshake", {
    hint: "Use a WebSocket client, or ask for the events as text/event-stream.",
  });
}
