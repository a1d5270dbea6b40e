/** Attaching to a region that stands, by a creation that takes what there is: it may ask for a longer life. */

import type { Owner } from "../journal/region-record.ts";
import { nextState } from "../state/lifecycle.ts";
import type { Region } from "../state/region.ts";
import type { Store } from "../state/store.ts";
import { noteFetch } from "./consumers.ts";
import { scheduleExpiry } from "./expire.ts";

/** The existing region, with its life extended if the caller asks for more. */
export function attachTo(store: Store, region: Region, owner: Owner): Region {
  nextState(region, "attach");
  store.books.touch(region, store.now());
  noteFetch(store, region);
  const expiresAt = longerLife(store, region, owner);
  if (expiresAt === undefined) return region;
  store.change("attach.journaled", [region, { owner, expiresAt }]);
  // What lingers longer is no hand-off any more.
  region.handOff = null;
  scheduleExpiry(store, region);
  store.emit({ type: "tensord.region.changed", region });
  return region;
}

/** When the region ends if the caller's owner replaces its own, or undefined if that would give it no longer life. */
function longerLife(store: Store, region: Region, owner: Owner): number | undefined {
  if (region.owner.kind === "linger" && owner.kind === "linger") {
    return owner.lingerMs > region.owner.lingerMs ? store.now() + owner.lingerMs : undefined;
  }
  if (region.owner.kind !== "ttl" || owner.kind !== "ttl") return undefined;
  const expiresAt = store.now() + owner.ttlMs;
  return expiresAt > (region.expiresAt ?? 0) ? expiresAt : undefined;
}
