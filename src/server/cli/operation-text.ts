/** How operations read on a terminal. Pure but for the clock. */

import type { Operation } from "./answers.ts";
import { toBytes, toSpan } from "./table.ts";

const barCharacters = 24;

/** A bar that fills, and what it means. */
export function toProgress({ kind, state, done_bytes: done, total_bytes: total }: Operation): string {
  if (kind === "load" && state === "running" && total === 0) return "opening the file";
  const part = total === 0 ? 1 : Math.min(1, done / total);
  const filled = Math.floor(part * barCharacters);
  const bar = `${"#".repeat(filled)}${".".repeat(barCharacters - filled)}`;
  return `[${bar}] ${Math.floor(part * 100)} %, ${toBytes(done)} of ${toBytes(total)}`;
}

export const operationHead = ["OPERATION", "KIND", "SOURCE", "STATE", "DONE", "MADE", "STARTED"];

export function toOperationRow(operation: Operation): string[] {
  const { id, kind, source, state, region, problem, started_at: startedAt } = operation;
  const done = `${toBytes(operation.done_bytes)} of ${toBytes(operation.total_bytes)}`;
  const why = problem === null || problem.code === state ? state : `${state}: ${problem.code}`;
  return [id, kind, source, why, done, region ?? "-", `${toSpan(Date.now() - Date.parse(startedAt))} ago`];
}
