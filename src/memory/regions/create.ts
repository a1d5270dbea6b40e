/**
 * Creation: charge and reserve in one turn, allocate, then commit in another. Whatever fails in between is undone
 * whole, and a name that exists is answered by `if_exists`.
 */

import { TensordError } from "../error.ts";
import { roundUpToPage } from "../host/capacity.ts";
import { isOutOfMemory } from "../journal/journal-failure.ts";
import { describe, type Owner } from "../journal/region-record.ts";
import { createToken, hostPool, toRegionId } from "../naming.ts";
import { hasEnded, nextState } from "../state/lifecycle.ts";
import { type Charge, checkQuota } from "../state/quota.ts";
import { type Region, type RegionEntry, toRegion } from "../state/region.ts";
import type { OnFull } from "../state/room-queue.ts";
import { type Claim, idOfSession, type Session } from "../state/session.ts";
import type { Store } from "../state/store.ts";
import type { AskedTensors, LaidOut } from "../storage/layout-lane.ts";
import type { Identity, Memory, Segment, StorageForm } from "../storage/storage.ts";
import { toFileBytes } from "../storage/tensor-files.ts";
import { attachTo } from "./attach.ts";
import { checkClaim } from "./claim.ts";
import { cancelCreation, refuseCommit, undoCreation } from "./end.ts";
import { scheduleExpiry } from "./expire.ts";
import { commitFilled, type Fill } from "./fill.ts";
import { hasRoom, makeRoom } from "./make-room.ts";

export type IfExists = "fail" | "attach" | "replace";

export interface CreateRequest {
  readonly model: string;
  readonly name: string | null;
  /** Which build of the name; "" unless somebody says so. */
  readonly version: string;
  readonly storage: StorageForm;
  /** Whether the caller said so: what there is in another one is then not what is asked for. */
  readonly isStorageSaid: boolean;
  readonly tensors: AskedTensors;
  /** Where they lie already, in bytes that are kept as they are; undefined: it is laid out. */
  readonly layout?: LaidOut | undefined;
  readonly owner: Owner;
  readonly ifExists: IfExists;
  readonly labels: Readonly<Record<string, string>>;
  /** The session that owns it, or null. */
  readonly session: Session | null;
  /** The id of the claim under which it is built. */
  readonly claim: string | undefined;
  readonly evictable: boolean;
  readonly onFull: OnFull;
  /** How long it may wait for memory. */
  readonly deadlineMs: number;
  /** Whose it will be: the name of a token, or null. */
  readonly createdBy: string | null;
  /** Writes its bytes before anybody sees it: it is then committed sealed. Undefined: it is committed open, and zeros. */
  readonly fill?: Fill | undefined;
  /** Whether that writes all of it by pwrite(2), at once and in parts under `latePages`, so that pages may come with the bytes. */
  readonly isWritten?: boolean;
  /** Who asks, for the events of what goes to make room. */
  readonly actor?: string | undefined;
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
  const deadline = performance.now() + request.deadlineMs;
  let plan: Plan | undefined;
  for (let hasTurn = false; ; ) {
    store.refuseIfStopping();
    signal.throwIfAborted();
    // Whatever was awaited, the session may have ended meanwhile.
    if (request.session !== null) store.books.session(idOfSession(request.session));
    const model = store.books.model(request.model);
    const holder = request.name === null ? undefined : model.names.get(request.name, request.version);
    const isFree = holder === undefined || request.ifExists === "replace";
    // The claim's session pays, and the claim may be gone at the next try.
    const claim = isFree ? checkClaim(store, request, request.claim) : undefined;
    const existing = isFree ? standing(claim?.built) : holder;
    if (existing === undefined) {
      if (plan === undefined) {
        plan = await toPlan(store, request);
        continue;
      }
      const session = request.session ?? claim?.session ?? null;
      const { poolName, chargedBytes: bytes, listBytes } = plan;
      const charge = { model, poolName, session, bytes, listBytes };
      const room = { ...charge, onFull: request.onFull, deadline, hasTurn, actor: request.actor };
      if (!hasRoom(store, room)) {
        await makeRoom(store, room, signal);
        hasTurn = true;
        continue;
      }
      return { region: await make(store, request, plan, charge, claim, signal), created: true };
    }
    if (!isFree && request.ifExists === "fail") throw nameTaken(existing);
    if (await isAttachable(store, request, existing, signal)) {
      return { region: attachTo(store, existing, request.owner), created: false };
    }
  }
}

/**
 * Whether `existing` is what is asked for, now. False if it went while its tensors were compared, or was still being made, and
 * has ended that either way.
 * @throws TensordError `name-taken` if it has other tensors, or is in another storage than the one that was said.
 */
async function isAttachable(
  store: Store,
  request: CreateRequest,
  existing: Region,
  signal: AbortSignal,
): Promise<boolean> {
  const difference = await store.layouts.compare(request.tensors, existing.tensors);
  if (difference !== undefined) throw nameTaken(existing, difference);
  if (request.isStorageSaid && existing.storageForm !== request.storage) throw otherStorage(existing, request.storage);
  if (existing.creation === null) return !hasEnded(existing.state);
  await waitFor(existing.creation.ended, signal);
  return false;
}

/** Under a claim one region is built: a request whose answer was lost, and that asks again, finds what it has made. */
function standing(built: Region | null | undefined): Region | undefined {
  return built == null || hasEnded(built.state) ? undefined : built;
}

function nameTaken(region: Region, difference?: unknown): TensordError {
  const detail =
    difference === undefined
      ? `Cannot create the name: ${describe(region)} holds it (${region.state})`
      : `Cannot attach to the name: ${describe(region)} holds it with other tensors`;
  return new TensordError("name-taken", detail, {
    region: `reg_${region.token}`,
    ...(difference === undefined ? {} : { difference }),
    hint: "Delete that region, choose another name, or say in `if_exists` that you attach to it or replace it.",
  });
}

function otherStorage(region: Region, storage: StorageForm): TensordError {
  const state = `${describe(region)} holds it in ${region.storageForm} storage, want ${storage}`;
  return new TensordError("name-taken", `Cannot attach to the name: ${state}`, {
    region: `reg_${region.token}`,
    hint: "Leave out what it is to be made of, delete that region, or replace it.",
  });
}

/** What the region would be; laid out once, however long it waits for memory. */
interface Plan {
  readonly token: string;
  readonly layout: LaidOut;
  readonly poolName: string;
  readonly chargedBytes: number;
  /** Of host memory beside. */
  readonly listBytes: number;
}

async function toPlan(store: Store, request: CreateRequest): Promise<Plan> {
  const token = createToken();
  const { memory, hasHeader } = store.storages.get(request.storage);
  const layout =
    request.layout ??
    (await store.layouts.layOut(
      request.tensors,
      hasHeader && {
        // Where there is metadata, transformers 4 refuses a file without it. It says of which library the shapes are.
        format: "pt",
        "tensord.region": toRegionId(token),
        "tensord.model": request.model,
        ...(request.name === null ? {} : { "tensord.name": request.name }),
        ...(request.version === "" ? {} : { "tensord.version": request.version }),
        "tensord.instance": store.instance,
      },
    ));
  const fileBytes = layout.index === undefined ? 0 : toFileBytes(layout.list);
  return { token, layout, poolName: memory.pool, ...toCharges(memory, layout.byteSize, fileBytes) };
}

/** What a region of `byteSize` bytes is charged, beside a list of its tensors that takes `fileBytes` of host memory. */
export function toCharges(
  { pool, pageSize, isCharged = true }: Pick<Memory, "pool" | "pageSize" | "isCharged">,
  byteSize: number,
  fileBytes: number,
): Pick<RegionEntry, "chargedBytes" | "listBytes"> {
  if (!isCharged) return { chargedBytes: fileBytes, listBytes: 0 };
  if (pool === hostPool) return { chargedBytes: roundUpToPage(byteSize, pageSize) + fileBytes, listBytes: 0 };
  // A driver gives no memory of no bytes.
  return { chargedBytes: roundUpToPage(Math.max(1, byteSize), pageSize), listBytes: fileBytes };
}

async function make(
  store: Store,
  request: CreateRequest,
  plan: Plan,
  charge: Charge,
  claim: Claim | undefined,
  signal: AbortSignal,
): Promise<Region> {
  const { token, layout } = plan;
  checkQuota(store.books, charge);
  const cancel = new AbortController();
  const ended = Promise.withResolvers<void>();
  const region = toRegion(toEntry(store, request, plan, charge));
  region.creation = { cancel, ended: ended.promise };
  store.books.add(region);
  if (claim !== undefined) claim.built = region;
  const onAbort = () => {
    if (signal.reason instanceof TensordError) cancel.abort(signal.reason);
    else cancelCreation(region, "its client went away");
  };
  signal.addEventListener("abort", onAbort);
  try {
    store.step("create.reserved");
    const { isWritten = false } = request;
    const segment = { token, byteSize: layout.byteSize, header: layout.header, isWritten };
    region.identity = await allocate(store, region, segment, cancel.signal);
    if (layout.index !== undefined) {
      region.tensors = await store.tensorFiles.write(token, layout.list, layout.index);
      store.step("create.list-written");
    }
    cancel.signal.throwIfAborted();
    if (request.fill === undefined) commit(store, region);
    else await commitFilled(store, region, request.fill, cancel.signal, request.actor);
    return region;
  } catch (error) {
    await undoCreation(store, region);
    throw error;
  } finally {
    signal.removeEventListener("abort", onAbort);
    region.creation = null;
    ended.resolve();
  }
}

/** What lies ready for regions to come goes before one is refused. */
async function allocate(store: Store, region: Region, segment: Segment, signal: AbortSignal): Promise<Identity> {
  const { reserve } = store;
  const { memory } = store.storages.of(region);
  if (memory.usesReserve !== true && memory.pool === hostPool && reserve.isInTheWay) await reserve.makeWay();
  try {
    return await memory.allocate(segment, signal);
  } catch (error) {
    if (!isOutOfMemory(error) || !(await reserve.giveBack())) throw error;
    await memory.discard(segment.token, segment.byteSize);
    return await memory.allocate(segment, signal);
  }
}

/** One turn: bytes, row, proof, public name, state. The order is what a restart relies on. */
function commit(store: Store, region: Region): void {
  const { token } = region;
  const { names } = store.storages.of(region);
  names.keep(token);
  store.step("create.kept");
  const state = nextState(region, "commit");
  try {
    store.journal.insertRegion({ ...region, state });
    store.step("create.journaled");
    store.proofs.put(region);
    store.step("create.proved");
    names.publish(token);
    store.step("create.published");
  } catch (error) {
    refuseCommit(store, region);
    throw error;
  }
  store.books.change(region, { state });
  scheduleExpiry(store, region);
  store.emit({ type: "tensord.region.allocated", region });
}

function toEntry(store: Store, request: CreateRequest, plan: Plan, { model, poolName, session }: Charge): RegionEntry {
  const { token, layout, chargedBytes, listBytes } = plan;
  const isNameTaken = request.name !== null && model.names.get(request.name, request.version) !== undefined;
  const now = store.now();
  return {
    key: store.books.nextKey(),
    token,
    model: model.name,
    name: isNameTaken ? null : request.name,
    pendingName: isNameTaken ? request.name : null,
    formerName: null,
    state: "creating",
    reason: null,
    owner: request.owner,
    expiresAt: request.owner.kind === "ttl" ? now + request.owner.ttlMs : null,
    session: session?.token ?? null,
    evictable: request.evictable,
    labels: request.labels,
    revision: 1,
    version: request.version,
    storageForm: request.storage,
    format: layout.header.length === 0 ? "raw" : "safetensors",
    identity: { dev: "0", ino: "0" },
    byteSize: layout.byteSize,
    dataOffset: layout.dataOffset,
    tensors: layout.list,
    checksum: null,
    stockWritable: false,
    createdAt: now,
    createdBy: request.createdBy,
    sealedAt: null,
    modelBooks: model,
    poolName,
    chargedBytes,
    listBytes,
    lastUsedAt: now,
    leasedAt: 0,
  };
}

/** Cancels every creation that is under way; each undoes itself and its request fails with `shutting-down`. */
export function stopCreations(store: Store): void {
  for (const region of [...store.books.regions.after(0)]) region.creation?.cancel.abort(store.stopping.reason);
}

/** Waits for `promise`, but no longer than until `signal` aborts. */
export async function waitFor(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  const aborted = Promise.withResolvers<never>();
  const abort = () => aborted.reject(signal.reason);
  signal.addEventListener("abort", abort);
  try {
    await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}
