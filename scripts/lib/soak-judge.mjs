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

/** @returns resident bytes, open descriptors (sockets among them) and mappings of a process */
export function readProcess(pid) {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const descriptors = readdirSync(`/proc/${pid}/fd`);
  return {
    rssBytes: Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)[1]) * 1024,
    descriptors: descriptors.length,
    sockets: descriptors.filter((fd) => isSocket(`/proc/${pid}/fd/${fd}`)).length,
    mappings: readFileSync(`/proc/${pid}/maps`, "utf8").split("\n").length - 1,
  };
}

function isSocket(path) {
  try {
    return readlinkSync(path).startsWith("socket:");
  } catch {
    // It was closed since it was listed.
    return false;
  }
}

export function judge({ before, after, connections, samples, tally, left, follower, unaccountedBytes }) {
  const quarter = Math.floor(samples.length / 4);
  const early = median(samples.slice(quarter, 2 * quarter).map(({ rssBytes }) => rssBytes));
  const late = median(samples.slice(3 * quarter).map(({ rssBytes }) => rssBytes));
  const allowed = early * growthShare + growthBytes;
  const descriptorsMore = after.descriptors - before.descriptors - connections;
  const counts = {
    kills_survived: tally.kills,
    requests: tally.requests,
    events: follower.count,
    orphans: Object.values(left).reduce((sum, count) => sum + count, 0),
    bytes_unaccounted_for: unaccountedBytes,
    acknowledged_regions_lost: tally.lostRegions,
    builds_that_ran_twice: follower.repeatedBuilds,
    event_gaps: follower.gaps,
    event_contradictions: follower.contradictions.length,
    left_by_the_events: follower.left,
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
  const details = { unexpected: tally.unexpected.slice(0, 20), contradictions: follower.contradictions };
  for (const text of [...details.unexpected, ...details.contradictions]) lines.push(`       ${text}`);
  const mib = (bytes) => `${Math.round(bytes / MiB)} MiB`;
  lines.push(
    `       resident: ${mib(before.rssBytes)} before, ${mib(early)} in the second quarter, ${mib(late)} in the last`,
  );
  lines.push(`       mappings: ${before.mappings} before, ${after.mappings} after`);
  return { isClean: !lines.some((line) => line.startsWith("LEAKED")), counts, before, after, details, lines };
}

function median(values) {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}
