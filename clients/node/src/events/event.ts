/** What the server tells of regions, sessions, operations, models and memory: CloudEvents, with `data` in our words. */

import { TensordError } from "../errors.ts";
import type { components } from "../generated/openapi.ts";
import { type FromWire, fromWire, isObject } from "../http/wire.ts";

interface CloudEvent<Type extends string, Data> {
  /**
   * A decimal number that grows and never repeats: ask for what came after it with `after`. Only a `tensord.stream.gap` has
   * another one, which is no place; its `data.after` is.
   */
  readonly id: string;
  readonly type: Type;
  /** `/tensord/<instance>` */
  readonly source: string;
  /** RFC 3339 */
  readonly time: string;
  /** The region's, session's, operation's or elastic pool's id, or the model's name. */
  readonly subject?: string;
  /** Which start of the server it comes from. */
  readonly tensordepoch: string;
  readonly data: Data;
}

type KnownEvents = components["schemas"]["KnownEvents"];
type EventOf<Type extends keyof KnownEvents> = {
  [Known in Type]: CloudEvent<Known, FromWire<KnownEvents[Known]>>;
}[Type];

/** A region without its tensors. */
export type RegionEventData = FromWire<components["schemas"]["RegionFacts"]>;

/** The first frame of each connection. It says where the stream stands, and is not handed out. */
export type StreamOpened = EventOf<"tensord.stream.opened">;

/**
 * One event; `type` narrows `data`. A gap says that events were missed, because they are not kept any more: list the
 * regions again, and go on. A newer server may send types that are not here.
 */
export type TensordEvent = EventOf<Exclude<keyof KnownEvents, StreamOpened["type"]>>;

/** Where a stream stands behind the event; undefined of what a newer server's stream may say of itself. */
export function positionOf({ type, id, data }: TensordEvent | StreamOpened): string | undefined {
  if (!type.startsWith("tensord.stream.")) return id;
  return "after" in data && typeof data.after === "string" ? data.after : undefined;
}

/** Reads one frame. @throws TensordError `server-fault` if it is no event */
export function parseEvent(text: string): TensordEvent | StreamOpened {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // Said below.
  }
  if (isObject(value) && [value.id, value.type].every((field) => typeof field === "string") && isObject(value.data)) {
    return { ...value, data: fromWire(value.data) } as TensordEvent | StreamOpened;
  }
  throw new TensordError("server-fault", "Cannot read the server's event: it is no CloudEvent", {
    hint: "is the server another version, or is TENSORD_URL something else's address?",
  });
}
