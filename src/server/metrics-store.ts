/** Metrics of the books, read from them when they are asked for. Of models a bounded number is shown by name. */

import { Gauge, type Registry } from "prom-client";
import type { Model } from "../memory/state/region.ts";
import { readStats } from "../memory/state/stats.ts";
import type { Store } from "../memory/state/store.ts";

/** The models registered first have series of their own; all others are summed under one name. */
const shownModels = 100;
const otherModels = "_other";

export function defineStoreMetrics(registry: Registry, store: Store): () => void {
  const gauge = <Label extends string = never>(name: string, help: string, ...labelNames: Label[]) =>
    new Gauge<Label>({ name, help, labelNames, registers: [registry] });
  const regions = gauge("tensord_regions", "Regions by state.", "state");
  const memory = gauge(
    "tensord_memory_bytes",
    "Bytes by kind: limit, used, draining, available, store, and unaccounted (of others in the file system).",
    "kind",
  );
  const freeInodes = gauge("tensord_inodes_free", "Inodes free in the shared memory file system.");
  const models = gauge("tensord_models", "Models that are registered.");
  const modelUsed = gauge("tensord_model_used_bytes", "Bytes charged to a model, the draining ones apart.", "model");
  const modelLimit = gauge("tensord_model_limit_bytes", "A model's limit; no series without one.", "model");
  const sessions = gauge("tensord_sessions", "Sessions that live.");
  const leases = gauge("tensord_leases", "Leases by request; kernel locks are not counted.");
  const claims = gauge("tensord_claims", "Names that somebody has the right to build.");
  const waiting = gauge("tensord_allocations_waiting", "Allocations that wait for memory.");
  const lastEvent = gauge("tensord_events_last_sequence", "Number of the last event.");
  const keptEvents = gauge("tensord_events_kept", "Events kept for those who resume.");
  const subscribers = gauge("tensord_event_subscribers", "Those who follow the events now.");
  return function update() {
    const stats = readStats(store);
    for (const [state, count] of Object.entries(stats.regions)) regions.set({ state }, count);
    for (const [kind, bytes] of Object.entries({ ...stats.bytes, store: stats.journalBytes }))
      memory.set({ kind }, bytes);
    freeInodes.set(stats.inodes.free);
    models.set(stats.models);
    modelUsed.reset();
    modelLimit.reset();
    for (const [model, { usedBytes, limitBytes }] of sumModels(store.books.models.values())) {
      modelUsed.set({ model }, usedBytes);
      if (limitBytes !== null) modelLimit.set({ model }, limitBytes);
    }
    sessions.set(stats.sessions);
    leases.set(stats.leases);
    claims.set(stats.claims);
    waiting.set(store.room.size);
    lastEvent.set(store.events.last);
    keptEvents.set(store.events.size);
    subscribers.set(store.feeder.size);
  };
}

/** Bytes by model; what is beyond the bound, and a model that is called like it, goes into one sum without a limit. */
export function sumModels(models: Iterable<Pick<Model, "name" | "usedBytes" | "memoryLimitBytes">>) {
  const sums = new Map<string, { usedBytes: number; limitBytes: number | null }>();
  let otherBytes: number | undefined;
  for (const { name, usedBytes, memoryLimitBytes } of models) {
    if (sums.size < shownModels && name !== otherModels) sums.set(name, { usedBytes, limitBytes: memoryLimitBytes });
    else otherBytes = (otherBytes ?? 0) + usedBytes;
  }
  if (otherBytes !== undefined) sums.set(otherModels, { usedBytes: otherBytes, limitBytes: null });
  return sums;
}
