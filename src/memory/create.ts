/**
 * Creation: charge and reserve in one turn, allocate, then commit in another. Whatever fails in between is undone
 * whole, and a name that exists is answered by `if_exists`.
 */

import { nameTaken } from "./books.ts";
import { drainRegion } from "./drain.ts";
import { TensordError } from "./error.ts";
import { roundUpToPage } from "./host/capacity.ts";
import { layOutRegion, type RegionLayout, type TensorSpec, tensorDifference } from "./layout/layout.ts";
import { nextState } from "./lifecycle.ts";
import { createToken, toRegionId } from "./naming.ts";
import { describe, type Model, type Owner, type Region } from "./region.ts";
import type { Store } from "./store.ts";

export type IfExists = "fail" | "attach" | "replace";

export interface CreateRequest {
  readonly model: string;
  readonly name: string | null;
  readonly tensors: readonly TensorSpec[];
  readonly owner: Owner;
  readonly ifExists: IfExists;
  readonly labels: Readonly<Record<string, string>>;
}

/**
 * Creates a region, or attaches to the one that holds the name.
 * @param signal the client's: a request that its client aborts before the commit leaves nothing behind.
 * @returns the region, and whether it is new. It belongs to its owner, not to the caller.
 * @throws TensordError `name-taken`, `model-not-found`, `shutting-down`, or a 507 that says what is full.
 */
export async function createRegion(
  store: Store,
  request: CreateRequest,
  signal: AbortSignal,
): Promise<{ readonly region: Region; readonly created: boolean }> {
  for (;;) {
    store.refuseIfStopping();
    signal.throwIfAborted();
    const model = store.books.model(request.model);
    const holder = request.name === null ? undefined : model.names.get(request.name);
    if (holder === undefined || request.ifExists === "replace") {
      return { region: await make(store, model, request, holder !== undefined, signal), created: true };
    }
    if (request.ifExists === "fail") throw nameTaken(holder);
    const difference = tensorDifference(request.tensors, holder.tensors);
    if (difference !== undefined) throw nameTaken(holder, difference);
    if (holder.creation === null) return { region: attachTo(store, holder, request.owner), created: false };
    await waitFor(holder.creation.ended, signal);
  }
}

/** The existing region, with its life extended if the caller asks for more. */
function attachTo(store: Store, region: Region, owner: Owner): Region {
  nextState(region.state, "attach", describe(region));
  region.lastUsedAt = store.now();
  if (region.owner.kind !== "ttl" || owner.kind !== "ttl") return region;
  const expiresAt = store.now() + owner.ttlMs;
  if (expiresAt <= (region.expiresAt ?? 0)) return region;
  const before = { owner: region.owner, expiresAt: region.expiresAt, revision: region.revision };
  Object.assign(region, { owner, expiresAt, revision: region.revision + 1 });
  try {
    store.journal.updateRegion(region);
  } catch (error) {
    Object.assign(region, before);
    throw error;
  }
  store.expiring.schedule(region, expiresAt);
  store.emit({ type: "tensord.region.changed", region });
  return region;
}

async function make(
  store: Store,
  model: Model,
  request: CreateRequest,
  isNameTaken: boolean,
  signal: AbortSignal,
): Promise<Region> {
  const token = createToken();
  const layout = layOutRegion(request.tensors, {
    "tensord.region": toRegionId(token),
    "tensord.model": model.name,
    ...(request.name === null ? {} : { "tensord.name": request.name }),
    "tensord.instance": store.instance,
  });
  const chargedBytes = roundUpToPage(layout.byteSize, store.storage.pageSize);
  store.books.checkQuota(model, chargedBytes);

  const cancel = new AbortController();
  const ended = Promise.withResolvers<void>();
  const region = toRegion(store, model, request, { token, layout, chargedBytes, isNameTaken });
  region.creation = { cancel, ended: ended.promise };
  store.books.add(region);
  const onAbort = () => cancel.abort(cancelled(region, "its client went away"));
  signal.addEventListener("abort", onAbort);
  try {
    store.step("create.reserved");
    region.identity = await store.storage.allocate(
      { token, byteSize: layout.byteSize, header: layout.header },
      cancel.signal,
    );
    cancel.signal.throwIfAborted();
    await commit(store, region);
    return region;
  } catch (error) {
    await abandon(store, region);
    throw error;
  } finally {
    signal.removeEventListener("abort", onAbort);
    region.creation = null;
    ended.resolve();
  }
}

/** One turn: bytes, row, public name, state. The order is what a restart relies on. */
async function commit(store: Store, region: Region): Promise<void> {
  const { token } = region;
  store.storage.keep(token);
  store.step("create.kept");
  const state = nextState(region.state, "commit", describe(region));
  try {
    store.journal.insertRegion({ ...region, state });
    store.step("create.journaled");
    store.storage.publish(token);
    store.step("create.published");
  } catch (error) {
    // The bytes are kept, so this is no longer an abort but a delete: name, keeper, row, and again if one of it fails.
    store.books.releaseName(region);
    region.reason = "aborted";
    store.books.setState(region, "draining");
    await drainRegion(store, region, undefined);
    throw error;
  }
  store.books.setState(region, state);
  if (region.expiresAt !== null) store.expiring.schedule(region, region.expiresAt);
  store.emit({ type: "tensord.region.allocated", region });
}

async function abandon(store: Store, region: Region): Promise<void> {
  if (region.state !== "creating") return;
  store.books.releaseName(region);
  try {
    await store.storage.discard(region.token, region.byteSize);
  } catch (error) {
    store.warn(`Cannot remove what was left of ${describe(region)}; the next start will`, error);
  }
  store.books.setState(region, nextState(region.state, "abort", describe(region)));
}

interface Plan {
  readonly token: string;
  readonly layout: RegionLayout;
  readonly chargedBytes: number;
  readonly isNameTaken: boolean;
}

function toRegion(store: Store, model: Model, request: CreateRequest, plan: Plan): Region {
  const { token, layout, chargedBytes, isNameTaken } = plan;
  const now = store.now();
  return {
    key: store.books.nextKey(),
    token,
    model: model.name,
    name: isNameTaken ? null : request.name,
    pendingName: isNameTaken ? request.name : null,
    state: "creating",
    reason: null,
    owner: request.owner,
    expiresAt: request.owner.kind === "ttl" ? now + request.owner.ttlMs : null,
    labels: request.labels,
    revision: 1,
    storageKind: "shm",
    identity: { dev: "0", ino: "0" },
    byteSize: layout.byteSize,
    dataOffset: layout.dataOffset,
    tensors: layout.tensors,
    checksum: null,
    stockWritable: false,
    createdAt: now,
    sealedAt: null,
    pool: model,
    chargedBytes,
    lastUsedAt: now,
    serverLeases: 0,
    waitsFor: null,
    isRowOwed: false,
    pollDelayMs: 0,
    creation: null,
  };
}

/** Cancels every creation that is under way; each undoes itself and its request fails with `shutting-down`. */
export function stopCreations(store: Store): void {
  for (const region of [...store.books.regions.after(0)]) region.creation?.cancel.abort(store.stopping.reason);
}

export function cancelled(region: Region, why: string): TensordError {
  return new TensordError("cancelled", `Cannot finish the creation of ${describe(region)}: ${why}`, {
    hint: "Nothing of it is left; create it again if it is needed.",
  });
}

/** Waits for `promise`, but no longer than until `signal` aborts. */
async function waitFor(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  const aborted = Promise.withResolvers<never>();
  const abort = () => aborted.reject(signal.reason);
  signal.addEventListener("abort", abort);
  try {
    await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}
