/** How a change becomes an event on the wire: CloudEvents 1.0 in JSON. `asyncapi.yaml` documents each type. */

import type { EventGap } from "../memory/events/event-cursor.ts";
import { idOf } from "../memory/journal/region-record.ts";
import { idOfSession } from "../memory/state/session.ts";
import type { Store } from "../memory/state/store.ts";
import type { StoreEvent } from "../memory/state/store-event.ts";
import { gapType, openedType } from "./schemas/event-data.ts";
import { toModel, toRegionFacts, toSession } from "./to-wire.ts";

/** An event as it is kept and sent. */
export function toEventText(store: Store, event: StoreEvent, sequence: number): string {
  if (event.type === "tensord.session.opened" || event.type === "tensord.session.ended") {
    return toSessionEventText(store, event, sequence);
  }
  if (event.type === "tensord.pool.pressure") {
    const { level, pool, model, usedBytes, limitBytes } = event.pressure;
    const data = { level, pool, model, used_bytes: usedBytes, limit_bytes: limitBytes };
    return toText(store, sequence, event.type, data, model ?? undefined);
  }
  if (!("region" in event)) return toText(store, sequence, event.type, toModel(event.model), event.model.name);
  const { type, region, ...rest } = event;
  const facts = toRegionFacts(store, region);
  const reason =
    "actor" in rest ? { former_name: region.formerName, reason: region.reason, actor: rest.actor ?? null } : rest;
  return toText(store, sequence, type, { ...facts, ...reason }, idOf(region));
}

function toSessionEventText(store: Store, event: Extract<StoreEvent, { session: unknown }>, sequence: number): string {
  const { type, session } = event;
  const end = "reason" in event ? { reason: event.reason, regions: event.regions, freed_bytes: event.freedBytes } : {};
  return toText(store, sequence, type, { ...toSession(session), ...end }, idOfSession(session));
}

export function toOpenedText(store: Store, position: number): string {
  return toText(store, position, openedType, { after: String(position) });
}

/** Its id is the position before the first event that is available, so that who has it resumes there. */
export function toGapText(store: Store, { requestedAfter, firstAvailable }: EventGap): string {
  const data = { requested_after: String(requestedAfter), first_available: String(firstAvailable) };
  return toText(store, firstAvailable - 1, gapType, data);
}

function toText(store: Store, sequence: number, type: string, data: object, subject?: string): string {
  return JSON.stringify({
    specversion: "1.0",
    id: String(sequence),
    source: `/tensord/${store.instance}`,
    type,
    time: new Date(store.now()).toISOString(),
    ...(subject === undefined ? {} : { subject }),
    datacontenttype: "application/json",
    // CloudEvents' integers have 32 bits.
    tensordepoch: String(store.epoch),
    data,
  });
}
