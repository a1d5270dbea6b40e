/** The zod schemas of elastic pools: what is asked of them, and what is answered about their pages and their workers. */

import { z } from "@hono/zod-openapi";
import { limits } from "../../memory/limits.ts";
import { runStates } from "../../memory/state/elastic.ts";
import { byteCount, idPattern, ModelName, nextCursor, SessionId, time } from "./common.ts";
import { DeviceUuid } from "./device.ts";
import { exactly, has } from "./requests.ts";
import { openWord } from "./words.ts";

const minimum = byteCount.openapi({
  description: "What is charged for it at least, so that nobody else takes it.",
  example: 0,
});
const maximum = byteCount.nullable().openapi({ description: "What its pages may take; null: no limit of its own." });

export const CreateElasticPool = z
  .strictObject({
    virtual_capacity: byteCount.min(1).openapi({
      description: `The bytes of its range: whole pages, at most ${limits.elasticPages} of them. They cost nothing until pages are mapped.`,
      example: 137_438_953_472,
    }),
    page_size: byteCount
      .min(1)
      .optional()
      .openapi({
        description:
          "A power of two, from the device's `granularity` to 1 GiB: what is mapped and unmapped at once. " +
          `Default ${limits.elasticPageBytesDefault}.`,
      }),
    minimum_bytes: minimum.optional(),
    maximum_bytes: maximum.optional(),
  })
  .openapi("CreateElasticPool", { example: { virtual_capacity: 137_438_953_472, page_size: 67_108_864 } });

export const ChangeElasticPool = z
  .strictObject({ minimum_bytes: minimum.optional(), maximum_bytes: maximum.optional() })
  .refine(
    (request) => Object.values(request).some((value) => value !== undefined),
    "want minimum_bytes or maximum_bytes",
  )
  .openapi("ChangeElasticPool", {
    ...exactly({ anyOf: [has("minimum_bytes"), has("maximum_bytes")] }),
    example: { maximum_bytes: 34_359_738_368 },
  });

const offset = byteCount.openapi({ description: "From the beginning of the range, in whole pages.", example: 0 });
const size = byteCount.min(1).openapi({ description: "Whole pages.", example: 67_108_864 });

export const MapPages = z
  .strictObject({
    byte_size: size,
    byte_offset: offset.optional().openapi({
      description: "Where, in whole pages. Default: the first hole that fits.",
    }),
    session: SessionId.optional().openapi({ description: "The pages go with this session." }),
    evictable: z.boolean().optional().openapi({
      description: "They may go to make room, least recently used first. Default false.",
    }),
    on_full: z.enum(["fail", "evict", "wait"]).optional().openapi({
      description: "Without room: `fail` (default), `evict` what may go, or `wait` for it and for others to let go.",
    }),
    deadline_ms: z
      .int()
      .min(1)
      .max(limits.deadlineMs)
      .optional()
      .openapi({ description: `How long \`wait\` waits. Default ${limits.deadlineDefaultMs}.` }),
  })
  .openapi("MapPages", { example: { byte_size: 134_217_728, evictable: true, on_full: "evict" } });

export const UnmapPages = z
  .strictObject({ byte_offset: offset, byte_size: size })
  .openapi("UnmapPages", { example: { byte_offset: 0, byte_size: 67_108_864 } });

const pages = {
  byte_offset: byteCount,
  byte_size: byteCount,
  first_page: z.int().min(1).openapi({
    description: "The number of its first page, the others follow in a row. No number is used twice in a pool.",
  }),
};

export const PageRun = z
  .object({
    ...pages,
    state: openWord("`leaving`: announced to go, as soon as every worker has let go.", runStates),
    evictable: z.boolean(),
    session: z.string().nullable().openapi({ description: "The session that it goes with." }),
    mapped_at: time,
    last_used_at: time.openapi({ description: "When a worker last took a page of it." }),
  })
  .openapi("PageRun", { description: "Pages side by side that were mapped at once, or what is left of them." });

const FreeRun = z.object({ byte_offset: byteCount, byte_size: byteCount }).openapi("FreeRun");

const LeavingRun = z
  .object({
    ...PageRun.shape,
    since: time,
    taken_by: z.array(z.int()).openapi({ description: "Slots of the workers that have pages of it." }),
  })
  .openapi("LeavingRun");

const OwedPage = z
  .object({
    page: z.int().openapi({ description: "Its number." }),
    byte_size: byteCount,
    since: time,
    reason: z.string().openapi({ description: "What the driver said last." }),
  })
  .openapi("OwedPage", { description: "A page that is charged, though nothing maps it: it was not given back yet." });

const PoolWorker = z
  .object({
    slot: z.int().openapi({ description: "The byte that it has locked in the pool's lease file." }),
    session: z.string().nullable(),
    client: z.string().nullable().openapi({ description: "What its process is called.", example: "trainer" }),
    agrees_to_moves: z.boolean().openapi({ description: "Whether pages may be moved while it is attached." }),
    taken_bytes: byteCount,
    taken_pages: z.int(),
    acknowledged: z.string().openapi({ description: "The id of the event that it has followed to." }),
    is_connected: z.boolean().openapi({ description: "false: its lock says that it lives all the same." }),
    overdue: z
      .array(z.object({ byte_offset: byteCount, byte_size: byteCount, since: time }).openapi("OverduePages"))
      .openapi({ description: "What left long ago, and it still has." }),
  })
  .openapi("PoolWorker", { description: "A process that is attached to the pool." });

const sequence = z.string().openapi({
  description: "The id of the event at which this is true: follow the events behind it.",
  example: "1795000000000123",
});

/** A pool without its lists. */
export const ElasticPool = z
  .object({
    id: z.string().openapi(idPattern("vmm_")),
    model: ModelName,
    device_uuid: DeviceUuid,
    virtual_capacity: byteCount,
    page_size: byteCount,
    minimum_bytes: minimum,
    maximum_bytes: maximum,
    revision: z.int(),
    created_at: time,
    physical_bytes: byteCount.openapi({ description: "What its pages take, those that leave or are owed too." }),
    mapped_bytes: byteCount,
    run_count: z.int(),
    free_bytes: byteCount.openapi({ description: "Of the range: where nothing lies." }),
    largest_free_bytes: byteCount,
    fragmentation: z.number().min(0).max(1).openapi({
      description: "1 − `largest_free_bytes` ÷ `free_bytes`; 0 where nothing is free.",
    }),
    sequence,
    survives_restart: z.boolean().openapi({ description: "Whether every page is kept while no server runs." }),
  })
  .openapi("ElasticPool", { description: "The pages of a model on a device, in one range that grows and shrinks." });

const first = (what: string) => `${what} The first ${limits.elasticListed}, by offset.`;

export const ElasticPoolDetail = z
  .object({
    ...ElasticPool.shape,
    runs: z.array(PageRun).openapi({ description: first("What is mapped, or leaves.") }),
    free_runs: z.array(FreeRun).openapi({ description: first("Where nothing lies.") }),
    leaving: z.array(LeavingRun).openapi({ description: "What goes, and who has it still." }),
    unreleased: z.array(OwedPage).openapi({ description: "Pages that the driver did not take back; tried again." }),
    stuck: z.array(OwedPage).openapi({ description: "Pages whose undoing failed; tried again." }),
    workers: z.array(PoolWorker),
    is_mapped: z.boolean().optional().openapi({
      description: "Whether every page of the range that was asked about is mapped; left out if none was.",
    }),
  })
  .openapi("ElasticPoolDetail");

export const ElasticPoolList = z
  .object({ items: z.array(ElasticPool), next_cursor: nextCursor })
  .openapi("ElasticPoolList");

export const MappedPages = z.object({ run: PageRun, sequence }).openapi("MappedPages");

export const PoolDeletion = z.object({ state: z.enum(["deleted"]), freed_bytes: byteCount }).openapi("PoolDeletion");

export const Trim = z
  .object({ freed_bytes: byteCount.openapi({ description: "Given back: nobody had taken it." }), sequence })
  .openapi("Trim");

const PageMove = z
  .object({
    from_byte_offset: byteCount,
    to_byte_offset: byteCount,
    byte_size: byteCount,
    first_page: pages.first_page,
  })
  .openapi("PageMove", { description: "The same pages, elsewhere in the range." });

export const Compaction = z
  .object({ moves: z.array(PageMove).openapi({ description: "In the order of their offsets." }), sequence })
  .openapi("Compaction");
