/** How a change becomes an event on the wire: CloudEvents 1.0 in JSON. `asyncapi.yaml` documents each type. */

import type { EventGap } from "../memory/events/event-cursor.ts";
import type { UnwrittenEvent, WriteEvent } from "../memory/events/event-log.ts";
import { idOf } from "../memory/journal/region-record.ts";
import { toSessionId } from "../memory/naming.ts";
import { idOfPool } from "../memory/state/elastic.ts";
import { idOfOperation } from "../memory/state/operation.ts";
import { idOfSession } from "../memory/state/session.ts";
import type { Store } from "../memory/state/store.ts";
import type { EventRegion, StoreEvent } from "../memory/state/store-event.ts";
import { dataSchemaOf, type EventType, gapType, openedType } from "./schemas/event-data.ts";
import { type FactsOfRegion, toModelFacts, toOperation, toRegionFacts, toSession } from "./to-wire.ts";

/** An event as it is kept and sent; that of a region, of which there are the most, is written when somebody reads it. */
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
  return toUnwritten(store, event);
}

type RegionEvent = Extract<StoreEvent, { region: unknown }>;

/** What an event of a region takes beside its names and labels. */
const factsBytes = 1536;

function toUnwritten(store: Store, event: RegionEvent): UnwrittenEvent {
  const { region } = event;
  return { byteSize: factsBytes + sizeOfWords(region), packed: pack(store, event), write: writerOf(store) };
}

const writers = new WeakMap<Store, WriteEvent>();

/** One for a store, and not one for each of its events. */
function writerOf(store: Store): WriteEvent {
  let write = writers.get(store);
  if (write === undefined) {
    write = (packed, type, sequence) => writeRegionEvent(store, packed, type as EventType, String(sequence));
    writers.set(store, write);
  }
  return write;
}

/** What an event of a region is written of, without the names of what it is: many are kept, and few are read. */
function pack(store: Store, event: RegionEvent): string {
  const { region } = event;
  const { owner, identity, checksum } = region;
  const origin = store.storages.has(region.storageForm) ? store.storages.of(region).origin : undefined;
  return JSON.stringify([
    store.now(),
    region.token,
    region.model,
    region.name,
    region.version,
    region.pendingName,
    region.state,
    region.revision,
    owner,
    region.session,
    region.expiresAt,
    region.evictable,
    region.labels,
    region.storageForm,
    region.format,
    identity.dev,
    identity.ino,
    region.byteSize,
    checksum,
    region.createdAt,
    region.createdBy,
    region.sealedAt,
    region.lastUsedAt,
    // The list itself may be long, and is not told.
    region.tensors.count,
    toMore(event),
    // Null: the runtime takes three times as long over a list with an undefined.
    origin === undefined ? null : { mtime_ns: origin.mtimeNs(region.token), changed: origin.changeOf(region.token) },
  ]);
}

function writeRegionEvent(store: Store, packed: string, type: EventType, id: string): string {
  const [
    time,
    token,
    model,
    name,
    version,
    pendingName,
    state,
    revision,
    owner,
    session,
    expiresAt,
    evictable,
    labels,
    storageForm,
    format,
    dev,
    ino,
    byteSize,
    checksum,
    createdAt,
    createdBy,
    sealedAt,
    lastUsedAt,
    count,
    more,
    origin,
  ] = JSON.parse(packed);
  const region: FactsOfRegion = {
    token,
    model,
    name,
    version,
    pendingName,
    state,
    revision,
    owner,
    session,
    expiresAt,
    evictable,
    labels,
    storageForm,
    format,
    identity: { dev, ino },
    byteSize,
    checksum,
    createdAt,
    createdBy,
    sealedAt,
    lastUsedAt,
    tensors: { count },
  };
  const facts = toRegionFacts(store, region);
  const storage = { ...facts.storage, ...origin };
  return toText(store, id, type, { ...facts, storage, ...more }, idOf(region), time);
}

function sizeOfWords({ model, name, version, pendingName, labels }: EventRegion): number {
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
