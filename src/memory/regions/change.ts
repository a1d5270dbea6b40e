/** Changes to a region that stands: its owner and its labels. Bytes and tensors never change here. */

import { TensordError } from "../error.ts";
import { describe, type Owner } from "../journal/region-record.ts";
import { limits } from "../limits.ts";
import { nextState } from "../state/lifecycle.ts";
import type { Region } from "../state/region.ts";
import type { Store } from "../state/store.ts";
import { scheduleExpiry } from "./expire.ts";
import { beginHandOff } from "./hand-off.ts";

/** What a client may change. */
export interface ChangeRequest {
  readonly owner?: Owner | undefined;
  readonly evictable?: boolean | undefined;
  /** Merged into what is there; null removes a label. */
  readonly labels?: Readonly<Record<string, string | null>> | undefined;
}

/** Applies `change`. A TTL counts anew from now. @throws TensordError `region-draining`. */
export function changeRegion(store: Store, region: Region, change: ChangeRequest): Region {
  nextState(region, "change");
  const { owner = region.owner, evictable = region.evictable, labels = {} } = change;
  if (owner.kind === "persist" && region.name === null && region.pendingName === null) {
    throw new TensordError("validation-failed", `Cannot let ${describe(region)} persist: it has no name, want one`, {
      hint: "Nobody could find it again. Give it a ttl_ms, or create it with a name.",
    });
  }
  const changed = {
    owner,
    evictable,
    labels: mergeLabels(region.labels, labels),
    expiresAt: expiryOf(store, region, change.owner),
    // A session no longer ends what has another owner, unless it still builds it.
    session: change.owner !== undefined && region.state === "sealed" ? null : region.session,
  };
  const usage = change.owner === undefined ? undefined : store.storages.of(region).memory.usage(region.token);
  store.change("change.journaled", [region, changed]);
  if (change.owner !== undefined) beginHandOff(store, region, usage);
  scheduleExpiry(store, region);
  store.emit({ type: "tensord.region.changed", region });
  return region;
}

function expiryOf(store: Store, region: Region, owner: Owner | undefined): number | null {
  if (owner === undefined) return region.expiresAt;
  return owner.kind === "ttl" ? store.now() + owner.ttlMs : null;
}

function mergeLabels(labels: Readonly<Record<string, string>>, change: Readonly<Record<string, string | null>>) {
  const merged = Object.entries({ ...labels, ...change }).filter(
    (entry): entry is [string, string] => entry[1] !== null,
  );
  if (merged.length <= limits.labels) return Object.fromEntries(merged);
  throw new TensordError(
    "validation-failed",
    `Cannot change the labels: together they are ${merged.length}, want at most ${limits.labels}`,
    { hint: "Take labels away in the same request: null for each that is no longer needed." },
  );
}
