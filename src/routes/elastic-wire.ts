/** How elastic pools become what travels: one function for each schema of theirs that is answered. Pure. */

import type { z } from "@hono/zod-openapi";
import { toSessionId } from "../memory/naming.ts";
import {
  idOfPool,
  type OwedPage,
  type PageMove,
  type ElasticPool as Pool,
  type PoolDescription,
  type PoolFigures,
  type PoolRange,
  type Run,
  type WorkerDescription,
} from "../memory/state/elastic.ts";
import type { Compaction, ElasticPool, ElasticPoolDetail, PageRun } from "./schemas/elastic-pool.ts";

export function toElasticPool(pool: Pool, figures: PoolFigures): z.infer<typeof ElasticPool> {
  return {
    id: idOfPool(pool),
    model: pool.model.name,
    device_uuid: pool.deviceUuid,
    virtual_capacity: pool.virtualCapacity,
    page_size: pool.pageSize,
    minimum_bytes: pool.minimumBytes,
    maximum_bytes: pool.maximumBytes,
    revision: pool.revision,
    created_at: toTime(pool.createdAt),
    physical_bytes: figures.physicalBytes,
    mapped_bytes: figures.mappedBytes,
    run_count: figures.runCount,
    free_bytes: figures.freeBytes,
    largest_free_bytes: figures.largestFreeBytes,
    fragmentation: figures.fragmentation,
    sequence: String(figures.sequence),
    survives_restart: figures.survivesRestart,
  };
}

export function toElasticPoolDetail(pool: Pool, description: PoolDescription): z.infer<typeof ElasticPoolDetail> {
  const { isMapped } = description;
  return {
    ...toElasticPool(pool, description),
    runs: description.runs.map(toRun),
    free_runs: description.freeRuns.map(toPlace),
    leaving: description.leaving.map((run) => ({
      ...toRun(run),
      since: toTime(run.since),
      taken_by: [...run.takenBy],
    })),
    unreleased: description.unreleased.map(toOwed),
    stuck: description.stuck.map(toOwed),
    workers: description.workers.map(toWorker),
    ...(isMapped === undefined ? {} : { is_mapped: isMapped }),
  };
}

export function toRun(run: Run): z.infer<typeof PageRun> {
  return {
    ...toPlace(run),
    first_page: run.firstPage,
    state: run.state,
    evictable: run.evictable,
    session: run.session === null ? null : toSessionId(run.session),
    mapped_at: toTime(run.mappedAt),
    last_used_at: toTime(run.lastUsedAt),
  };
}

export function toCompaction({
  moves,
  sequence,
}: {
  readonly moves: readonly PageMove[];
  readonly sequence: number;
}): z.infer<typeof Compaction> {
  return { moves: moves.map(toMove), sequence: String(sequence) };
}

export function toMove({ fromByteOffset, toByteOffset, byteSize, firstPage }: PageMove) {
  return {
    from_byte_offset: fromByteOffset,
    to_byte_offset: toByteOffset,
    byte_size: byteSize,
    first_page: firstPage,
  };
}

function toPlace({ byteOffset, byteSize }: PoolRange) {
  return { byte_offset: byteOffset, byte_size: byteSize };
}

function toOwed({ page, byteSize, since, reason }: OwedPage) {
  return { page, byte_size: byteSize, since: toTime(since), reason };
}

function toWorker(worker: WorkerDescription) {
  return {
    slot: worker.slot,
    session: worker.session === null ? null : toSessionId(worker.session),
    client: worker.client,
    agrees_to_moves: worker.agreesToMoves,
    taken_bytes: worker.takenBytes,
    taken_pages: worker.takenPages,
    acknowledged: String(worker.acknowledged),
    is_connected: worker.isConnected,
    overdue: worker.overdue.map((pages) => ({ ...toPlace(pages), since: toTime(pages.since) })),
  };
}

function toTime(ms: number): string {
  return new Date(ms).toISOString();
}
