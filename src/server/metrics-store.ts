/** Metrics of the books, read from them when they are asked for. Of models a bounded number is shown by name. */

import Counter from "prom-client/lib/counter.js";
import Gauge from "prom-client/lib/gauge.js";
import type Registry from "prom-client/lib/registry.js";
import { hostPool } from "../memory/naming.ts";
import { endStates } from "../memory/state/operation.ts";
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
    "Bytes of a pool by kind: limit, used, draining, available, reserve (ready, and among the available ones), and unaccounted (of others in it).",
    "pool",
    "kind",
  );
  const journal = gauge("tensord_journal_bytes", "What the server's own database and ballast occupy.");
  const freeInodes = gauge("tensord_inodes_free", "Inodes free in the shared memory file system.");
  const models = gauge("tensord_models", "Models that are registered.");
  const modelUsed = gauge(
    "tensord_model_used_bytes",
    "Bytes of a pool charged to a model, the draining ones apart.",
    "model",
    "pool",
  );
  const modelLimit = gauge(
    "tensord_model_limit_bytes",
    "A model's limit of a pool; no series without one.",
    "model",
    "pool",
  );
  const sessions = gauge("tensord_sessions", "Sessions that live.");
  const leases = gauge("tensord_leases", "Leases by request; kernel locks are not counted.");
  const claims = gauge("tensord_claims", "Names that somebody has the right to build.");
  const waiting = gauge("tensord_allocations_waiting", "Allocations that wait for memory.");
  const operations = gauge("tensord_operations_running", "Operations that run now.");
  const operationsEnded = new Counter<"state">({
    name: "tensord_operations_total",
    help: "Operations that have ended, by how.",
    labelNames: ["state"],
    registers: [registry],
  });
  const lastEvent = gauge("tensord_events_last_sequence", "Number of the last event.");
  const keptEvents = gauge("tensord_events_kept", "Events kept for those who resume.");
  const subscribers = gauge("tensord_event_subscribers", "Those who follow the events now.");
  return function update() {
    const stats = readStats(store);
    for (const [state, count] of Object.entries(stats.regions)) regions.set({ state }, count);
    for (const { name: pool, ...bytes } of stats.pools) {
      if (bytes.limitBytes !== null) memory.set({ pool, kind: "limit" }, bytes.limitBytes);
      memory.set({ pool, kind: "used" }, bytes.usedBytes);
      memory.set({ pool, kind: "draining" }, bytes.drainingBytes);
      memory.set({ pool, kind: "available" }, bytes.availableBytes);
      if (pool === hostPool) memory.set({ pool, kind: "reserve" }, bytes.reserveBytes);
      if (bytes.unaccountedBytes !== null) memory.set({ pool, kind: "unaccounted" }, bytes.unaccountedBytes);
    }
    journal.set(stats.journalBytes);
    freeInodes.set(stats.inodes.free);
    models.set(stats.models);
    modelUsed.reset();
    modelLimit.reset();
    for (const { model, pool, usedBytes, limitBytes } of sumModels(store.books.models.values())) {
      modelUsed.set({ model, pool }, usedBytes);
      if (limitBytes !== null) modelLimit.set({ model, pool }, limitBytes);
    }
    sessions.set(stats.sessions);
    leases.set(stats.leases);
    claims.set(stats.claims);
    waiting.set(store.room.size);
    operations.set(store.operations.running);
    operationsEnded.reset();
    for (const state of endStates) operationsEnded.inc({ state }, store.operations.endedAs(state));
    lastEvent.set(store.events.last);
    keptEvents.set(store.events.size);
    subscribers.set(store.feeder.size);
  };
}

interface ModelSum {
  readonly model: string;
  readonly pool: string;
  usedBytes: number;
  readonly limitBytes: number | null;
}

/** Bytes by model and pool; what is beyond the bound, and a model that is called like it, goes into sums without a limit. */
export function sumModels(models: Iterable<Pick<Model, "name" | "pools">>): ModelSum[] {
  const sums: ModelSum[] = [];
  const others = new Map<string, ModelSum>();
  let shown = 0;
  for (const { name, pools } of models) {
    const isShown = shown < shownModels && name !== otherModels;
    if (isShown) shown += 1;
    for (const { name: pool, usedBytes, limitBytes } of pools.all) {
      if (isShown) sums.push({ model: name, pool, usedBytes, limitBytes });
      else {
        const other = others.get(pool) ?? { model: otherModels, pool, usedBytes: 0, limitBytes: null };
        other.usedBytes += usedBytes;
        others.set(pool, other);
      }
    }
  }
  return [...sums, ...others.values()];
}
