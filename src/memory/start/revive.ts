/** A region from an earlier server enters the books again, with the mode and the name that its state asks for. */

import type { ModelRow } from "../journal/journal-rows.ts";
import type { RegionRecord } from "../journal/region-record.ts";
import { toCharges } from "../regions/create.ts";
import { scheduleExpiry } from "../regions/expire.ts";
import { beginHandOff, isHandOff } from "../regions/hand-off.ts";
import { inspectName } from "../regions/public-name.ts";
import { toModel } from "../state/books.ts";
import { hasEnded, nextState } from "../state/lifecycle.ts";
import { type Model, type Region, toRegion } from "../state/region.ts";
import type { Store } from "../state/store.ts";
import type { Access, KeptFile } from "../storage/storage.ts";

/** A model that a region names and no row knows: it comes back without a limit, because losing the region is worse. */
export function ensureModel(store: Store, name: string): Model {
  return store.books.findModel(name) ?? store.books.addModel(unlimited(store, name));
}

/** A region that drains does not bring its unregistered model back. */
function findOrMakeModel(store: Store, name: string): Model {
  return store.books.findModel(name) ?? toModel(unlimited(store, name));
}

function unlimited(store: Store, name: string): ModelRow {
  return { name, limits: [], revision: 1, createdAt: store.now() };
}

/** Enters `record`, whose bytes are `file`, and mends what a crash left half done. */
export function reviveRegion(store: Store, record: RegionRecord, file: KeptFile): Region {
  const { memory } = store.storages.of(record);
  const region = toRegion({
    ...record,
    // A seal that was under way is not finished: nobody was told that it is.
    state: record.state === "sealing" ? nextState(record, "seal-refused") : record.state,
    modelBooks: hasEnded(record.state) ? findOrMakeModel(store, record.model) : ensureModel(store, record.model),
    poolName: memory.pool,
    ...toCharges(memory, record.byteSize, record.tensors.fileBytes),
    lastUsedAt: store.now(),
    // What lingers may have been mapped until the crash: its linger begins anew.
    leasedAt: isHandOff(record) ? 0 : store.now(),
  });
  store.books.add(region);
  if (hasEnded(region.state)) {
    store.draining.schedule(region, store.now());
    return region;
  }
  const access = accessOf(region);
  if (file.access !== access) store.storages.of(region).memory.setAccess(region.token, access);
  // What its name has meant since its seal only its own mark could tell.
  if (file.access !== access && access !== "open") memory.unmark?.(region.token, access);
  inspectName(store, region);
  if (isHandOff(region)) beginHandOff(store, region, memory.usage(region.token));
  scheduleExpiry(store, region);
  return region;
}

function accessOf(region: Region): Access {
  if (region.state !== "sealed") return "open";
  return region.stockWritable ? "sealed-stock-writable" : "sealed";
}
