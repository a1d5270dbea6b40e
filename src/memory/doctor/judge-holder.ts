/** Judges the fd holder: whether the memory of regions without a name would outlive a crash of the server. */

import type { Facts } from "./facts.ts";
import { type Finding, failing, fine, warning } from "./finding.ts";
import { count } from "./words.ts";

export function judgeHolder({ holder, server }: Facts): Finding {
  const check = "fd-holder";
  if (holder.state === "silent") {
    return failing(check, `The fd holder does not answer: ${holder.reason}.`, holder.hint);
  }
  const wanted = server?.toBeHeld ?? 0;
  if (holder.state === "none") {
    if (wanted > 0) return missing(`No fd holder runs for ${count(wanted, "descriptor")}`);
    if (server === null) return fine(check, "No fd holder runs: the memory of no memfd region is kept.");
    if (server.toBeHeld !== null) return fine(check, "No fd holder runs, and nothing needs one.");
    return fine(check, "No fd holder runs: memfd regions end with the server, as TENSORD_HOLDER_TTL_MS says.");
  }
  const { pid, descriptors, ageMs } = holder;
  const what = `The fd holder, pid ${pid}, keeps ${count(descriptors, "descriptor")}, and has run for ${toAge(ageMs)}`;
  if (descriptors < wanted) return missing(`${what}; ${count(wanted, "descriptor")} should be kept`);
  if (server !== null || descriptors === 0) return fine(check, `${what}.`);
  return warning(
    check,
    `${what}, for a server that is not there.`,
    "Start the server: it takes them over. The fd holder frees them when its time is over (TENSORD_HOLDER_TTL_MS); tensord purge does so now.",
  );
}

function missing(what: string): Finding {
  return warning(
    "fd-holder",
    `${what}: a crash of the server now loses memfd regions.`,
    "The server tries again by itself. If this stays, its log says why.",
  );
}

function toAge(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  if (seconds < 120) return count(seconds, "second");
  const minutes = Math.floor(seconds / 60);
  return minutes < 120 ? count(minutes, "minute") : count(Math.floor(minutes / 60), "hour");
}
