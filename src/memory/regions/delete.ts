/** Deletion: a region ends now, whoever uses it, and its memory is freed at once or when its last lease is gone. */

import type { EndReason } from "../journal/region-record.ts";
import type { Region } from "../state/region.ts";
import type { Store } from "../state/store.ts";
import { endRegion } from "./end.ts";
import { type Deletion, freeRegion, toDeletion } from "./free.ts";

/**
 * Deletes `region`; of one that drains already it says so and changes nothing.
 * @param actor who asked, for events and logs.
 * @throws TensordError if the row cannot be written; the region then stands as it was.
 */
export async function deleteRegion(store: Store, region: Region, reason: EndReason, actor?: string): Promise<Deletion> {
  return endRegion(store, region, reason, actor) ? await freeRegion(store, region, actor) : toDeletion(region);
}
