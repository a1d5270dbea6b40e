/**
 * Public names cannot be lost to a reader: one function looks at one region's name and mends it; `name-watch.ts`
 * calls it, and so does every GET.
 */

import { describe } from "../journal/region-record.ts";
import { limits } from "../limits.ts";
import { hasEnded } from "../state/lifecycle.ts";
import type { Region } from "../state/region.ts";
import type { Store } from "../state/store.ts";
import type { NameState } from "../storage/storage.ts";
import { loseRegion } from "./end.ts";

/**
 * Looks at the region's public name in one synchronous turn, links it back if it is gone, and says so. It never throws:
 * what cannot be mended now is reported, and looked at again.
 */
export function inspectName(store: Store, region: Region): void {
  if (region.state === "creating" || hasEnded(region.state)) return;
  try {
    act(store, region, store.storages.of(region).names.inspect(region.token, region.identity));
  } catch (error) {
    store.warn(`Cannot look after the name of ${describe(region)}; the next look tries again`, error);
  }
}

function act(store: Store, region: Region, found: NameState): void {
  switch (found) {
    case "relinked":
      lookAgain(store, region);
      store.emit({ type: "tensord.region.relinked", region, cause: "unlinked" });
      break;
    case "replaced":
      lookAgain(store, region);
      store.emit({ type: "tensord.region.relinked", region, cause: "foreign-file" });
      break;
    case "blocked":
      store.warn(`Cannot bring the name of ${describe(region)} back; the next look tries again`, undefined);
      break;
    case "changed":
      store.change("change.journaled", [region, {}]);
      store.storages.of(region).names.settle?.(region.token);
      store.emit({ type: "tensord.region.changed", region });
      break;
    case "lost":
      loseRegion(store, region);
      break;
    case "intact":
      break;
  }
}

/** The watch may tell once of what happened twice: whoever took the name may have taken it again. */
function lookAgain(store: Store, region: Region): void {
  store.mending.schedule(region, store.now() + limits.nameLookAgainMs);
}
