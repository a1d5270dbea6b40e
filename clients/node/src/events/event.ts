/** What the server tells of regions, sessions, models and memory: CloudEvents, with `data` in our words. */

import { TensordError } from "../errors.ts";
import { fromWire, isObject, type Model, type RegionDescriptor, type SessionDescriptor } from "../http/wire.ts";

interface CloudEvent<Type extends string, Data> {
  /** A decimal number that grows and never repeats. Ask for what came after it with `after`. */
  readonly id: string;
  readonly type: Type;
  /** `/tensord/<instance>` */
  readonly source: string;
  /** RFC 3339 */
  readonly time: string;
  /** The region's or session's id, or the model's name. */
  readonly subject?: string;
  /** Which start of the server it comes from. */
  readonly tensordepoch: string;
  readonly data: Data;
}

/** A region without its tensors. */
export type RegionEventData = Omit<
  RegionDescriptor,
  "tensors" | "inUse" | "hasWriters" | "leases" | "holders" | "unknownHolders" | "drain"
> & {
  readonly tensorCount: number;
};

interface Reason {
  /** The name that it gave up. */
  readonly formerName: string | null;
  readonly reason: "request" | "ttl" | "linger" | "session" | "evicted" | "replaced" | "orphaned";
  readonly actor: string | null;
}

interface SessionEnding {
  readonly reason: "request" | "ttl" | "hold";
  readonly freedBytes: number;
}

/** Memory is short, or no longer: of a model, or of the whole pool if `model` is null. */
interface Pressure {
  readonly level: "high" | "normal";
  readonly model: string | null;
  readonly usedBytes: number;
  readonly limitBytes: number;
}

/**
 * One event; `type` narrows `data`. A gap says that events were missed, because they are not kept any more: list the
 * regions again, and go on. A newer server may send types that are not here.
 */
export type TensordEvent =
  | CloudEvent<
      "tensord.region.allocated" | "tensord.region.sealed" | "tensord.region.changed" | "tensord.region.lost",
      RegionEventData
    >
  | CloudEvent<"tensord.region.draining" | "tensord.region.deleted", RegionEventData & Reason>
  | CloudEvent<"tensord.region.relinked", RegionEventData & { readonly cause: "unlinked" | "foreign-file" }>
  | CloudEvent<"tensord.model.registered" | "tensord.model.changed" | "tensord.model.unregistered", Model>
  | CloudEvent<"tensord.session.opened", SessionDescriptor>
  | CloudEvent<"tensord.session.ended", SessionDescriptor & SessionEnding>
  | CloudEvent<"tensord.pool.pressure", Pressure>
  | CloudEvent<"tensord.stream.gap", { readonly requestedAfter: string; readonly firstAvailable: string }>;

/** The first frame of each connection. It says where the stream stands, and is not handed out. */
export type StreamOpened = CloudEvent<"tensord.stream.opened", { readonly after: string }>;

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
