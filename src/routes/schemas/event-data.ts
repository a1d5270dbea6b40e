/**
 * What each type of event carries. `openapi.yaml` has it as the schema KnownEvents, a member for each type, to which
 * `asyncapi.yaml` refers and from which clients' types come.
 */

import { z } from "@hono/zod-openapi";
import { toldEndReasons } from "../../memory/journal/region-record.ts";
import { mapReasons, unmapReasons } from "../../memory/state/elastic.ts";
import type { SessionEndReason } from "../../memory/state/session.ts";
import type { StoreEvent } from "../../memory/state/store-event.ts";
import { lossCauses } from "../../memory/storage/storage.ts";
import { byteCount, idPattern } from "./common.ts";
import { ModelFacts } from "./model.ts";
import { Operation } from "./operation.ts";
import { RegionFacts } from "./region.ts";
import { Session } from "./session.ts";
import { openWord } from "./words.ts";

/** With this begins what a stream says of itself. */
export const streamTypes = "tensord.stream.";
/** The first frame of a stream: where it stands. */
export const openedType = "tensord.stream.opened";
/** Something that was asked for is not kept. */
export const gapType = "tensord.stream.gap";

const eventId = z.string().openapi({ description: "The id of an event.", example: "1795000000000123" });

const formerName = z.string().nullable().openapi({ description: "The name that it had, which is free." });

const RegionEnd = z
  .object({
    ...RegionFacts.shape,
    former_name: formerName,
    reason: openWord("Why it ends.", toldEndReasons),
    actor: z.string().nullable().openapi({ description: "The id of the request that ended it; null if none did." }),
  })
  .openapi("RegionEnd", { description: "A region that ends." });

const RegionLoss = z
  .object({
    ...RegionFacts.shape,
    former_name: formerName,
    cause: openWord(
      "`removed`: somebody took its file away. `not-kept`: nobody held its memory while no server ran.",
      lossCauses,
    ),
  })
  .openapi("RegionLoss", { description: "A region whose memory is gone, by no request." });

const RegionRelink = z
  .object({
    ...RegionFacts.shape,
    cause: openWord("What had become of the name.", ["unlinked", "foreign-file"]),
  })
  .openapi("RegionRelink", { description: "A region that got its public name back." });

const sessionEndReasons: readonly SessionEndReason[] = ["request", "ttl", "hold"];

const SessionOver = z
  .object({
    ...Session.shape,
    reason: openWord("`hold`: the peer of its last hold is gone.", sessionEndReasons),
    freed_bytes: z.int(),
  })
  .openapi("SessionOver", { description: "A session that has ended. `regions` is how many ended with it." });

const PoolPressure = z
  .object({
    level: openWord("`normal`: the pressure is over.", ["high", "normal"]),
    pool: z.string().openapi({ description: "`host`, or a device's UUID.", example: "host" }),
    model: z.string().nullable().openapi({ description: "The model whose limit is meant; null for the server's." }),
    used_bytes: byteCount,
    limit_bytes: byteCount,
  })
  .openapi("PoolPressure", { description: "How full a pool is." });

/** What every event of an elastic pool says of it. */
const elasticPool = {
  model: z.string(),
  device_uuid: z.string(),
  pool: z.string().openapi(idPattern("vmm_")),
  page_size: byteCount,
};

const pages = {
  byte_offset: byteCount,
  byte_size: byteCount,
  first_page: z.int().min(1).openapi({ description: "The number of its first page; the others follow in a row." }),
};

const PagesMapped = z
  .object({
    ...elasticPool,
    runs: z.array(z.object({ ...pages, evictable: z.boolean(), session: z.string().nullable() })),
    reason: openWord("`undone`: they were announced to go, and stay.", mapReasons),
  })
  .openapi("PagesMapped", { description: "Pages of an elastic pool that are there, to be taken and mapped." });

const PagesUnmapped = z
  .object({
    ...elasticPool,
    runs: z.array(z.object(pages)),
    reason: openWord("Why they go. `lost`: they are gone already, by no request.", unmapReasons),
    actor: z.string().nullable().openapi({ description: "The id of the request that had them go; null if none did." }),
  })
  .openapi("PagesUnmapped", {
    description: "Pages of an elastic pool that go as soon as every worker has let go of them.",
  });

const PagesMoved = z
  .object({
    ...elasticPool,
    moves: z.array(
      z.object({
        from_byte_offset: byteCount,
        to_byte_offset: byteCount,
        byte_size: byteCount,
        first_page: pages.first_page,
      }),
    ),
  })
  .openapi("PagesMoved", {
    description:
      "The same pages of an elastic pool lie elsewhere in its range: unmap all of them where they were, then map each where it is.",
  });

/** What `tensord.stream.*` carries in place of a number for its id. */
const after = eventId.openapi({ description: "Where the stream stands: resume with it." });

const StreamStart = z.object({ after }).openapi("StreamStart", { description: "Where the stream begins." });

const StreamLoss = z
  .object({ requested_after: eventId, first_available: eventId, after })
  .openapi("StreamLoss", { description: "What was asked for, and what there is." });

interface EventFacts {
  readonly summary: string;
  readonly data: z.ZodType;
}

/** Every type of event. One that the code has and this table has not does not compile. */
export const events = {
  "tensord.region.allocated": { summary: "A region is there, to be mapped and written.", data: RegionFacts },
  "tensord.region.sealed": { summary: "A region is final.", data: RegionFacts },
  "tensord.region.changed": {
    summary: "A region has another owner or other labels, or the file that it is has changed.",
    data: RegionFacts,
  },
  "tensord.region.draining": { summary: "A region lost its name, and waits for its leases.", data: RegionEnd },
  "tensord.region.deleted": { summary: "A region is gone, and its memory is free.", data: RegionEnd },
  "tensord.region.lost": { summary: "A region's memory is gone, by no request.", data: RegionLoss },
  "tensord.region.relinked": { summary: "A region's public name was gone, and is back.", data: RegionRelink },
  "tensord.model.registered": { summary: "A model is there.", data: ModelFacts },
  "tensord.model.changed": { summary: "A model has another limit.", data: ModelFacts },
  "tensord.model.unregistered": { summary: "A model is gone.", data: ModelFacts },
  "tensord.session.opened": { summary: "A session is there.", data: Session },
  "tensord.session.ended": { summary: "A session is over, and all that was its own.", data: SessionOver },
  "tensord.operation.progress": { summary: "An operation has begun, or has got further.", data: Operation },
  "tensord.operation.finished": { summary: "An operation has ended, in whatever way.", data: Operation },
  "tensord.pool.pressure": { summary: "A pool runs full, or has room again.", data: PoolPressure },
  "tensord.vmm.mapped": { summary: "Pages of an elastic pool are there.", data: PagesMapped },
  "tensord.vmm.unmapped": { summary: "Pages of an elastic pool go: let go of them.", data: PagesUnmapped },
  "tensord.vmm.moved": { summary: "Pages of an elastic pool lie elsewhere in its range.", data: PagesMoved },
  [openedType]: {
    summary: "The first frame of every stream. `data.after` is where it stands: resume with it if no other came.",
    data: StreamStart,
  },
  [gapType]: {
    summary:
      "Events after the requested one are not kept. List the regions again, and resume with `data.after`, not its id.",
    data: StreamLoss,
  },
} as const satisfies Readonly<Record<StoreEvent["type"] | typeof openedType | typeof gapType, EventFacts>>;

export type EventType = keyof typeof events;
export const eventTypes = Object.keys(events) as readonly EventType[];

/**
 * What `dataschema` of an event says. CloudEvents wants an absolute URI, without a fragment, and a Unix socket has none that
 * leads to it; so it is a name, as a Problem's `type` is.
 */
export function dataSchemaOf(type: EventType): string {
  return `urn:tensord:event-data:${type}`;
}

export const KnownEvents = z
  .object(
    Object.fromEntries(eventTypes.map((type) => [type, events[type].data])) as {
      [Type in EventType]: (typeof events)[Type]["data"];
    },
  )
  .openapi("KnownEvents", {
    description:
      "No answer is this: its members are the types of events, and each member's schema is what `data` of that type carries. " +
      "A later server may tell of other types.",
  });
