/** How a change becomes an event on the wire: CloudEvents 1.0 in JSON. `asyncapi.yaml` documents each type. */

import type { EventGap } from "../memory/events/event-cursor.ts";
import type { UnwrittenEvent } from "../memory/events/event-log.ts";
import { idOf } from "../memory/journal/region-record.ts";
import { toSessionId } from "../memory/naming.ts";
import { idOfPool } from "../memory/state/elastic.ts";
import { idOfOperation } from "../memory/state/operation.ts";
import { idOfSession } from "../memory/state/session.ts";
import type { Store } from "../memory/state/store.ts";
import type { EventRegion, StoreEvent } from "../memory/state/store-event.ts";
import { dataSchemaOf, type EventType, gapType, openedType } from "./schemas/event-data.ts";
import { type FactsOfRegion, toModelFacts, toOperation, toRegionFacts, toSession } from "./to-wire.ts";

/** An event as it is kept and sent; that of a region, of which there are the most, is written once somebody reads it. */
export function toEventText(store: Store, event: StoreEvent, sequence: number): string | UnwrittenEvent {
  const id = String(sequence);
  if (event.type === "tensord.session.opened" || event.type === "tensord.session.ended") {
    return toSessionEventText(store, event, id);
  }
  if (event.type === "tensord.pool.pressure") {
    const { level, pool, model, usedBytes, limitBytes } = event.pressure;
    const data = { level, pool, model, used_bytes: usedBytes, limit_bytes: limitBytes };
    return toText(store, id, event.type, data, model ?? undefined);
  }
  if ("operation" in event) {
    return toText(store, id, event.type, toOperation(event.operation), idOfOperation(event.operation));
  }
  if ("elastic" in event) return toElasticEventText(store, event, id);
  if (!("region" in event)) return toText(store, id, event.type, toModelFacts(event.model), event.model.name);
  return toUnwritten(store, event, id);
}

type RegionEvent = Extract<StoreEvent, { region: unknown }>;

/** What an event of a region takes beside its names and labels. */
const factsBytes = 1536;

function toUnwritten(store: Store, event: RegionEvent, id: string): UnwrittenEvent {
  const { type } = event;
  const region = takeDown(event.region);
  const more = toMore(event);
  const time = store.now();
  return {
    byteSize: factsBytes + sizeOfWords(region),
    write: () => toText(store, id, type, { ...toRegionFacts(store, region), ...more }, idOf(region), time),
  };
}

/** A region as it is now: what changes of it later is put in another object's place, and never in its own. */
function takeDown(region: EventRegion): FactsOfRegion {
  return {
    token: region.token,
    model: region.model,
    name: region.name,
    version: region.version,
    pendingName: region.pendingName,
    state: region.state,
    revision: region.revision,
    owner: region.owner,
    session: region.session,
    expiresAt: region.expiresAt,
    evictable: region.evictable,
    labels: region.labels,
    storageForm: region.storageForm,
    format: region.format,
    identity: region.identity,
    byteSize: region.byteSize,
    checksum: region.checksum,
    createdAt: region.createdAt,
    createdBy: region.createdBy,
    sealedAt: region.sealedAt,
    lastUsedAt: region.lastUsedAt,
    // The list itself may be long, and is not told.
    tensors: { count: region.tensors.count },
  };
}

function sizeOfWords({ model, name, version, pendingName, labels }: FactsOfRegion): number {
  let bytes = model.length + (name?.length ?? 0) + version.length + (pendingName?.length ?? 0);
  for (const key in labels) bytes += 8 + key.length + (labels[key]?.length ?? 0);
  return bytes;
}

/** What an event of a region carries beside the region itself. */
function toMore(event: RegionEvent): object {
  const { region } = event;
  if ("actor" in event) {
    return { former_name: region.formerName, reason: region.reason, actor: event.actor ?? null };
  }
  if (event.type === "tensord.region.lost") return { former_name: region.formerName, cause: event.cause };
  return "cause" in event ? { cause: event.cause } : {};
}

function toSessionEventText(store: Store, event: Extract<StoreEvent, { session: unknown }>, id: string): string {
  const { type, session } = event;
  const end = "reason" in event ? { reason: event.reason, regions: event.regions, freed_bytes: event.freedBytes } : {};
  return toText(store, id, type, { ...toSession(session), ...end }, idOfSession(session));
}

function toElasticEventText(store: Store, event: Extract<StoreEvent, { elastic: unknown }>, id: string): string {
  const { type, elastic } = event;
  const pool = {
    model: elastic.model.name,
    device_uuid: elastic.deviceUuid,
    pool: idOfPool(elastic),
    page_size: elastic.pageSize,
  };
  return toText(store, id, type, { ...pool, ...toPages(event) }, idOfPool(elastic));
}

function toPages(event: Extract<StoreEvent, { elastic: unknown }>): object {
  if (event.type === "tensord.vmm.moved") {
    const moves = event.moves.map(({ fromByteOffset, toByteOffset, byteSize, firstPage }) => ({
      from_byte_offset: fromByteOffset,
      to_byte_offset: toByteOffset,
      byte_size: byteSize,
      first_page: firstPage,
    }));
    return { moves };
  }
  const { reason } = event;
  const runs = event.runs.map((run) => ({
    byte_offset: run.byteOffset,
    byte_size: run.byteSize,
    first_page: run.firstPage,
    ...(event.type === "tensord.vmm.mapped"
      ? { evictable: run.evictable, session: run.session === null ? null : toSessionId(run.session) }
      : {}),
  }));
  return { runs, reason, ...("actor" in event ? { actor: event.actor ?? null } : {}) };
}

export function toOpenedText(store: Store, position: number): string {
  return toStreamText(store, openedType, { after: String(position) });
}

export function toGapText(store: Store, gap: EventGap): string {
  const data = { requested_after: String(gap.requestedAfter), first_available: String(gap.firstAvailable) };
  return toStreamText(store, gapType, { ...data, after: String(positionBehind(gap)) });
}

/** Where a subscriber stands that was told of the gap: it resumes there. */
export function positionBehind({ firstAvailable }: EventGap): number {
  return firstAvailable - 1;
}

/**
 * What a stream says of itself is said to one subscriber, and is none of the numbered events: under a number it would pass
 * for the event that has it, with whoever drops what comes twice. So its data says where the stream stands, and not its id.
 */
function toStreamText(store: Store, type: EventType, data: { readonly after: string }): string {
  return toText(store, crypto.randomUUID(), type, data);
}

function toText(
  store: Store,
  id: string,
  type: EventType,
  data: object,
  subject?: string,
  time: number = store.now(),
): string {
  return JSON.stringify({
    specversion: "1.0",
    id,
    source: `/tensord/${store.instance}`,
    type,
    time: new Date(time).toISOString(),
    ...(subject === undefined ? {} : { subject }),
    datacontenttype: "application/json",
    dataschema: dataSchemaOf(type),
    // CloudEvents' integers have 32 bits.
    tensordepoch: String(store.epoch),
    data,
  });
}
