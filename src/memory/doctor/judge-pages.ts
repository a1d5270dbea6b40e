/** Judges pages of elastic pools that should be gone: what a worker has for too long, and what nobody gives back. */

import type { Facts, OverdueFacts, OwedFacts } from "./facts.ts";
import { type Finding, fine, warning } from "./finding.ts";
import { thresholds } from "./thresholds.ts";
import { count, inBytes, listSome } from "./words.ts";

const check = "elastic-pools";

export function judgePages({ server, now }: Facts): readonly Finding[] {
  if (server === null || server.elasticPools === 0) return [];
  const { overdue, owed, elasticPools } = server;
  const late = overdue.length === 0 ? [] : [judgeOverdue(overdue, now)];
  const kept = owed.length === 0 ? [] : [judgeOwed(owed, now)];
  if (late.length + kept.length > 0) return [...late, ...kept];
  return [fine(check, `${count(elasticPools, "elastic pool")}: no page is overdue, and none is owed.`)];
}

function judgeOverdue(overdue: readonly OverdueFacts[], now: number): Finding {
  const told = overdue.map(({ pool, worker, isConnected, byteSize, sinceMs }) => {
    const whether = isConnected ? "" : ", whose connection has ended,";
    return `${worker}${whether} has ${inBytes(byteSize)} of ${pool} for ${inSeconds(now - sinceMs)} since that left`;
  });
  return warning(
    check,
    `Pages that left are still in use: ${listSome(told, thresholds.shownItems)}.`,
    "Their memory is free once the worker has let go of it, or ended: look whether it follows the pool's events.",
  );
}

function judgeOwed(owed: readonly OwedFacts[], now: number): Finding {
  const told = owed.map(({ pool, page, isStuck, sinceMs, reason }) => {
    const state = isStuck ? "is stuck" : "is not released";
    return `page ${page} of ${pool} ${state} for ${inSeconds(now - sinceMs)} (${reason})`;
  });
  return warning(
    check,
    `The driver has not taken back what nobody uses: ${listSome(told, thresholds.shownItems)}.`,
    "It is tried again by itself. If that goes on, see the kernel's log (dmesg, NVRM); a restart of the server gives it back.",
  );
}

function inSeconds(ms: number): string {
  return `${Math.max(0, Math.round(ms / 1000))} s`;
}
