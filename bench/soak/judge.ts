/** What the server's process holds, and whether a soak left more of it than it found. */

import { readdirSync, readFileSync, readlinkSync } from "node:fs";

const MiB = 2 ** 20;
/**
 * The heap of a JavaScript engine breathes: what counts is whether memory still grows once it has had its time. Between the
 * second quarter and the last it may differ by this share and this much.
 */
const growthShare = 0.15;
const growthBytes = 24 * MiB;
/** The engine's own mappings come and go with its heap and its compiler. */
const mappingsMore = 128;

/** What a process holds. */
export interface Holdings {
  readonly rssBytes: number;
  /** Open ones, sockets among them. */
  readonly descriptors: number;
  readonly sockets: number;
  readonly mappings: number;
}

/** What the server holds and tells in one second of the soak. */
export interface Sample extends Holdings {
  readonly second: number;
  readonly sessions: number;
  readonly regions: number;
  readonly usedBytes: number;
  readonly events: number;
  /** How long the answer took that told it. */
  readonly answerMs: number;
}

/** What workers and users have counted. */
export interface Tally {
  kills: number;
  /** Regions that the server had acknowledged and no longer has, or whose bytes are others. */
  lostRegions: number;
  requests: number;
  /** Failures that nothing explains. */
  readonly unexpected: string[];
}

/** What the subscriber has heard by the end. */
export interface Heard {
  readonly count: number;
  readonly gaps: number;
  readonly contradictions: readonly string[];
  readonly repeatedBuilds: number;
  readonly left: number;
}

interface Evidence {
  readonly before: Holdings;
  readonly after: Holdings;
  /** How many of the server's descriptors are connections that we keep. */
  readonly connections: number;
  readonly samples: readonly Sample[];
  readonly tally: Tally;
  /** What should have ended by itself and has not. */
  readonly left: Readonly<Record<string, number>>;
  readonly heard: Heard;
  /** Null where others use the file system too. */
  readonly unaccountedBytes: number | null;
}

export interface Verdict {
  readonly isClean: boolean;
  readonly counts: Readonly<Record<string, number | null>>;
  readonly before: Holdings;
  readonly after: Holdings;
  readonly details: Readonly<Record<string, readonly string[]>>;
  /** For people. */
  readonly lines: readonly string[];
}

export function readProcess(pid: number): Holdings {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const descriptors = readdirSync(`/proc/${pid}/fd`);
  return {
    rssBytes: Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024,
    descriptors: descriptors.length,
    sockets: descriptors.filter((fd) => isSocket(`/proc/${pid}/fd/${fd}`)).length,
    mappings: readFileSync(`/proc/${pid}/maps`, "utf8").split("\n").length - 1,
  };
}

function isSocket(path: string): boolean {
  try {
    return readlinkSync(path).startsWith("socket:");
  } catch {
    // It was closed since it was listed.
    return false;
  }
}

export function judge(evidence: Evidence): Verdict {
  const { before, after, connections, samples, tally, left, heard, unaccountedBytes } = evidence;
  const quarter = Math.floor(samples.length / 4);
  const early = median(samples.slice(quarter, 2 * quarter).map(({ rssBytes }) => rssBytes));
  const late = median(samples.slice(3 * quarter).map(({ rssBytes }) => rssBytes));
  const allowed = early * growthShare + growthBytes;
  const descriptorsMore = after.descriptors - before.descriptors - connections;
  const counts = {
    kills_survived: tally.kills,
    requests: tally.requests,
    events: heard.count,
    orphans: Object.values(left).reduce((sum, count) => sum + count, 0),
    bytes_unaccounted_for: unaccountedBytes,
    acknowledged_regions_lost: tally.lostRegions,
    builds_that_ran_twice: heard.repeatedBuilds,
    event_gaps: heard.gaps,
    event_contradictions: heard.contradictions.length,
    left_by_the_events: heard.left,
    unexpected_failures: tally.unexpected.length,
    descriptors_leaked: Math.max(0, descriptorsMore),
    mappings_leaked: Math.max(0, after.mappings - before.mappings - mappingsMore),
    bytes_leaked: Math.max(0, Math.round(late - early - allowed)),
  };
  const told = new Set(["kills_survived", "requests", "events"]);
  const lines = Object.entries(counts).map(([what, count]) => {
    const isWrong = !told.has(what) && count !== 0 && count !== null;
    return `${isWrong ? "LEAKED" : "ok    "} ${what.replaceAll("_", " ")}: ${count ?? "not known without a file system of its own"}`;
  });
  const details = { unexpected: tally.unexpected.slice(0, 20), contradictions: heard.contradictions };
  for (const text of [...details.unexpected, ...details.contradictions]) lines.push(`       ${text}`);
  const mib = (bytes: number) => `${Math.round(bytes / MiB)} MiB`;
  lines.push(
    `       resident: ${mib(before.rssBytes)} before, ${mib(early)} in the second quarter, ${mib(late)} in the last`,
  );
  lines.push(`       mappings: ${before.mappings} before, ${after.mappings} after`);
  return { isClean: !lines.some((line) => line.startsWith("LEAKED")), counts, before, after, details, lines };
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}
