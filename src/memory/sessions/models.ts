/** Models: registering a name with its limit, changing the limit, and unregistering it with all that it holds. */

import { TensordError } from "../error.ts";
import type { PoolLimit } from "../journal/journal-rows.ts";
import { limits } from "../limits.ts";
import { quote } from "../naming.ts";
import { deleteRegion } from "../regions/delete.ts";
import type { Deletion } from "../regions/free.ts";
import { defaultModelName } from "../state/books.ts";
import { Pools } from "../state/pool.ts";
import type { Model } from "../state/region.ts";
import type { Store } from "../state/store.ts";

/** What is asked for of a model's limits, by pool; null takes one away. */
export type LimitChanges = ReadonlyMap<string, number | null>;

/** @throws TensordError `model-exists`, `validation-failed` if there is no such pool, `not-ready` if it may be a device's that is still looked for. */
export function registerModel(store: Store, name: string, changes: LimitChanges): Model {
  store.refuseIfStopping();
  checkPools(store, changes);
  if (store.books.findModel(name) !== undefined) {
    throw new TensordError("model-exists", `Cannot register model ${quote(name)}: it exists`, {
      hint: "Use it as it is, or change its limit.",
    });
  }
  if (store.books.models.size >= limits.models) {
    throw new TensordError("too-many-requests", `Cannot register a model: ${limits.models} exist, the most that may`, {
      hint: "Unregister models that are no longer used.",
    });
  }
  const row = { name, limits: applyTo(Pools.of([]), changes), revision: 1, createdAt: store.now() };
  store.journal.putModel(row);
  store.step("model.journaled");
  const model = store.books.addModel(row);
  store.emit({ type: "tensord.model.registered", model });
  return model;
}

/** One page of models by name, after the name `cursor`. */
export function listModels(store: Store, limit: number, cursor = "") {
  const found = store.books.modelsAfter(cursor, limit + 1);
  const items = found.slice(0, limit);
  return { items, nextCursor: found.length > limit ? (items.at(-1)?.name ?? null) : null };
}

/** Changes limits, at once. One below what is used stops further creations and takes nothing away. @throws as `registerModel`. */
export function changeModel(store: Store, model: Model, changes: LimitChanges): Model {
  checkPools(store, changes);
  const { name, createdAt } = model;
  const revision = model.revision + 1;
  store.journal.putModel({ name, limits: applyTo(model.pools, changes), revision, createdAt });
  store.step("model.journaled");
  model.revision = revision;
  for (const [pool, limitBytes] of changes) model.pools.get(pool).limitBytes = limitBytes;
  store.emit({ type: "tensord.model.changed", model });
  return model;
}

/**
 * Unregisters a model; with `drain` its regions are deleted first.
 * @throws TensordError `model-in-use` if it has regions and `drain` is false, or if it is the default model.
 */
export async function unregisterModel(store: Store, model: Model, drain: boolean, actor?: string): Promise<Deletion> {
  refuseModelInUse(model, drain);
  model.closing = true;
  let freedBytes = 0;
  try {
    for (let key = 0, region = first(model, key); region !== undefined; region = first(model, key)) {
      key = region.key;
      freedBytes += (await deleteRegion(store, region, "request", actor)).freedBytes;
    }
    store.journal.deleteModel(model.name);
    store.step("model.row-deleted");
  } catch (error) {
    model.closing = false;
    throw error;
  }
  store.books.removeModel(model);
  store.emit({ type: "tensord.model.unregistered", model });
  return { state: model.regions.size > 0 ? "draining" : "deleted", freedBytes };
}

/** @throws TensordError `model-in-use` as `unregisterModel` would. */
export function refuseModelInUse(model: Model, drain: boolean): void {
  if (model.name === defaultModelName) {
    throw new TensordError("model-in-use", `Cannot unregister model "${defaultModelName}": it always exists`, {
      hint: "Delete its regions instead, one by one or with `tensord rm`.",
    });
  }
  if (model.elasticPools > 0) {
    throw new TensordError(
      "model-in-use",
      `Cannot unregister model ${quote(model.name)}: it has ${model.elasticPools} elastic pools`,
      { pools: model.elasticPools, hint: "Delete its elastic pools first; workers have to leave them." },
    );
  }
  if (model.regions.size > 0 && !drain) {
    throw new TensordError(
      "model-in-use",
      `Cannot unregister model ${quote(model.name)}: it has ${model.regions.size} regions`,
      {
        regions: model.regions.size,
        hint: "Delete them first, or say `drain`, which deletes them with it.",
      },
    );
  }
}

function first(model: Model, key: number) {
  for (const region of model.regions.after(key)) return region;
  return undefined;
}

/** The limits that `pools` would have. */
function applyTo(pools: Pools, changes: LimitChanges): PoolLimit[] {
  const limitsByPool = new Map([...pools.all].map(({ name, limitBytes }) => [name, limitBytes]));
  for (const [pool, limitBytes] of changes) limitsByPool.set(pool, limitBytes);
  return [...limitsByPool].flatMap(([pool, limitBytes]) => (limitBytes === null ? [] : [{ pool, limitBytes }]));
}

/** A limit of what is not there would be a slip that nobody sees. Taking one away is always possible. */
function checkPools(store: Store, changes: LimitChanges): void {
  for (const [pool, limitBytes] of changes) if (limitBytes !== null) store.checkPool(pool, "limit");
}
