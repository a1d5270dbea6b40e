/** How regions ended that somebody may still ask for: the latest of them, in memory alone. For sentences, never for decisions. */

import type { EndReason } from "../journal/region-record.ts";
import { limits } from "../limits.ts";
import type { LossCause } from "../storage/storage.ts";
import { KeptEndings } from "./kept-endings.ts";

/** The region as those knew it who ask for it. */
interface Ended {
  readonly token: string;
  readonly model: string;
  readonly version: string;
  readonly formerName: string | null;
}

export class EndedRegions {
  /** When, in ms since the epoch, and how, with its verb: `ended with session ses_…`. */
  readonly #endings = new KeptEndings(limits.endedRegions);

  remember(region: Ended, how: string, now: number): void {
    for (const key of toKeys(region)) this.#endings.set(key, `${now} ${how}`);
  }

  /** How and when the region with this token ended, from the verb on; undefined if that is forgotten. */
  tellById(token: string, now: number): string | undefined {
    return this.#tell(token, now);
  }

  /** The same of the last region that had the name, in this version or in any. */
  tellByName(model: string, name: string, version: string | undefined, now: number): string | undefined {
    return this.#tell(version === undefined ? `${model}/${name}` : `${model}/${name}/${version}`, now);
  }

  #tell(key: string, now: number): string | undefined {
    const ending = this.#endings.get(key);
    if (ending === undefined) return undefined;
    const at = Number.parseFloat(ending);
    return `${ending.slice(ending.indexOf(" ") + 1)} ${toAge(now - at)} ago`;
  }
}

/** A name has no slash, so no key is another's. */
function toKeys({ token, model, formerName, version }: Ended): readonly string[] {
  return formerName === null ? [token] : [token, `${model}/${formerName}`, `${model}/${formerName}/${version}`];
}

function toAge(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 120) return `${seconds} s`;
  return seconds < 7200 ? `${Math.floor(seconds / 60)} min` : `${Math.floor(seconds / 3600)} h`;
}

const sentences: Readonly<Record<EndReason, string>> = {
  request: "was deleted by request",
  ttl: "ended with its TTL",
  linger: "ended with its linger, since nobody used it",
  session: "ended with its session",
  evicted: "was evicted to make room",
  replaced: "was replaced",
  orphaned: "was found without a row, and freed",
  aborted: "was never finished",
};

const losses: Readonly<Record<LossCause, string>> = {
  removed: "was lost: somebody removed its file",
  "not-kept": "was lost: nobody held its memory while no server ran",
};

export function describeLoss(cause: LossCause): string {
  return losses[cause];
}

/** @param session who it ended with, as people are told of it, if that is known. */
export function describeEnd(reason: EndReason, session: string | undefined): string {
  return reason === "session" && session !== undefined ? `ended with session ${session}` : sentences[reason];
}
