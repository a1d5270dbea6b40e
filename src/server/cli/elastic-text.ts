/** How elastic pools read on a terminal. Pure but for the clock. */

import type { ElasticPool, ElasticPoolDetail } from "./answers.ts";
import { toBytes, toSpan, toTable } from "./table.ts";

export const poolHead = ["MODEL", "DEVICE", "RANGE", "PAGE", "MAPPED", "PHYSICAL", "MAXIMUM", "RUNS", "FREE IN ONE"];

export function toRow(pool: ElasticPool): string[] {
  return [
    pool.model,
    pool.device_uuid,
    toBytes(pool.virtual_capacity),
    toBytes(pool.page_size),
    toBytes(pool.mapped_bytes),
    toBytes(pool.physical_bytes),
    pool.maximum_bytes === null ? "-" : toBytes(pool.maximum_bytes),
    String(pool.run_count),
    toBytes(pool.largest_free_bytes),
  ];
}

/** The pool, its runs, and who is attached. */
export function toPoolText(pool: ElasticPoolDetail): string {
  const { runs, workers, unreleased, stuck } = pool;
  const parts = [toTable(poolHead, [toRow(pool)])];
  if (!pool.survives_restart) parts.push("some of its pages would not outlive the server: too few file descriptors");
  if (runs.length > 0) parts.push(toTable(runHead, runs.map(toRunRow)));
  if (workers.length > 0) parts.push(toTable(workerHead, workers.map(toWorkerRow)));
  for (const [word, owed] of [
    ["unreleased", unreleased],
    ["stuck", stuck],
  ] as const) {
    for (const { page, byte_size, reason } of owed)
      parts.push(`${word}: page ${page}, ${toBytes(byte_size)}: ${reason}`);
  }
  return parts.join("\n\n");
}

const runHead = ["OFFSET", "SIZE", "PAGES FROM", "STATE", "EVICTABLE", "SESSION", "MAPPED"];
const workerHead = ["SLOT", "WORKER", "TAKEN", "MOVES", "CONNECTED", "OVERDUE"];

function toRunRow(run: ElasticPoolDetail["runs"][number]): string[] {
  return [
    String(run.byte_offset),
    toBytes(run.byte_size),
    String(run.first_page),
    run.state,
    run.evictable ? "yes" : "no",
    run.session ?? "-",
    `${toSpan(Date.now() - Date.parse(run.mapped_at))} ago`,
  ];
}

function toWorkerRow(worker: ElasticPoolDetail["workers"][number]): string[] {
  const overdue = worker.overdue.reduce((sum, { byte_size }) => sum + byte_size, 0);
  return [
    String(worker.slot),
    worker.client ?? "-",
    toBytes(worker.taken_bytes),
    worker.agrees_to_moves ? "yes" : "no",
    worker.is_connected ? "yes" : "no",
    overdue === 0 ? "-" : toBytes(overdue),
  ];
}
