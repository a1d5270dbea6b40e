/**
 * The start: makes books, journal and keeper agree again after whatever happened. What is kept and has a row comes back as
 * it was; what cannot be proved to be ours is left alone.
 */

import { isDeepStrictEqual } from "node:util";
import type { JournalContent } from "../journal/journal-content.ts";
import type { ClaimRow, RequestedLeaseRow } from "../journal/journal-rows.ts";
import { describe, type RegionRecord } from "../journal/region-record.ts";
import { Tensors } from "../layout/tensors.ts";
import { endWithSession, scheduleExpiry } from "../regions/expire.ts";
import { freeRegion } from "../regions/free.ts";
import { enterRequestedLease } from "../regions/requested-lease.ts";
import { enterSession } from "../sessions/sessions.ts";
import { defaultModelName } from "../state/books.ts";
import { describeLoss } from "../state/ended-regions.ts";
import { hasEnded, nextState } from "../state/lifecycle.ts";
import type { Region } from "../state/region.ts";
import type { Session } from "../state/session.ts";
import type { Store } from "../state/store.ts";
import type { KeptFile, Storage } from "../storage/storage.ts";
import { adoptRegion } from "./adopt.ts";
import { findList, sweepLists } from "./lists.ts";
import { ensureModel, reviveRegion } from "./revive.ts";

/** Runs once, before the first request. @returns what was read, for what comes back after regions and sessions. */
export async function recoverStore(store: Store): Promise<Pick<JournalContent, "elastic">> {
  for (const { memory } of store.storages.all) await memory.discardAll();
  const { models, sessions, regions, claims, leases, elastic } = store.journal.read();
  for (const row of models) store.books.addModel(row);
  ensureModel(store, defaultModelName);
  for (const record of sessions) enterSession(store, record);
  const kept = findKept(store);
  const absent = new Set<string>();
  for (const record of regions) {
    if (!store.storages.has(record.storageForm)) {
      warnOfAbsence(store, record);
      absent.add(record.token);
      continue;
    }
    const { file, storage } = kept.get(record.token) ?? {};
    if (file === undefined || storage === undefined || file.identity.ino !== record.identity.ino) {
      forget(store, record);
      continue;
    }
    kept.delete(record.token);
    const tensors = await findList(store, storage, record, file);
    const region = reviveRegion(store, { ...record, tensors, identity: file.identity }, file);
    recoverOwner(store, region);
  }
  await recoverRowless(store, [...kept.values()]);
  await sweepLists(store, (token) => absent.has(token) || store.books.regionByToken(token) !== undefined);
  settleProofs(store, regions);
  recoverClaims(store, claims);
  recoverRequestedLeases(store, leases);
  endAbandoned(store);
  if (store.journal.isAdopting) store.journal.endAdoption();
  return { elastic };
}

interface Kept {
  readonly storage: Storage;
  readonly file: KeptFile;
}

/** What every storage keeps, by token. */
function findKept(store: Store): Map<string, Kept> {
  const kept = new Map<string, Kept>();
  for (const storage of store.storages.all) {
    for (const file of storage.names.kept()) kept.set(file.token, { storage, file });
  }
  return kept;
}

/** Its memory may be whole, and a start where the storage is there again brings it back. */
function warnOfAbsence(store: Store, record: RegionRecord): void {
  const what = `${describe(record)}, which is in ${record.storageForm} storage`;
  store.warn(`Cannot bring back ${what}: this host has none; its row stays`, undefined);
}

/**
 * Files without a row. A creation links the public name only once the row is written, and a deletion unlinks it before
 * the row goes: who has the name had a row, which was lost with the journal or with the end of its log. What has no public
 * name has its proof for that, which is written and removed in between.
 */
async function recoverRowless(store: Store, rowless: readonly Kept[]): Promise<void> {
  const { isAdopting } = store.journal;
  const { shown = [], hidden = [] } = Object.groupBy(rowless, ({ storage, file }) =>
    wasEntered(store, storage, file) ? "shown" : "hidden",
  );
  const proven = shown.map((kept) => ({ ...kept, proof: store.proofs.find(kept.file.token) }));
  const age = ({ proof }: (typeof proven)[number]) => proof?.key ?? Number.MAX_SAFE_INTEGER;
  for (const { storage, file, proof } of proven.toSorted((one, other) => age(one) - age(other))) {
    await adoptRegion(store, storage, file, proof);
  }
  for (const { storage, file } of hidden) {
    // It was on its way out, or somebody took its name away while no server ran: nobody can tell.
    if (isAdopting) await adoptRegion(store, storage, file, undefined);
    else drainOrphan(store, storage, file);
  }
  if (isAdopting || shown.length === 0) return;
  const regions = shown.length === 1 ? "region whose row is" : "regions whose rows are";
  store.warn(`Adopted ${shown.length} ${regions} lost; later changes of others may be lost too`, undefined);
}

function wasEntered(store: Store, { names }: Storage, { token, identity }: KeptFile): boolean {
  return names.isPublished(token, identity) ?? store.proofs.find(token) !== undefined;
}

/** A proof that is newer than the row tells of a change whose row was lost; a change of the owner is not undone by that. */
function recoverOwner(store: Store, region: Region): void {
  if (hasEnded(region.state) || !store.proofs.isNewer(region)) return;
  const proof = store.proofs.find(region.token);
  if (proof === undefined || proof.owner === null) return;
  const { owner } = proof;
  const expiresAt = owner.kind === "ttl" ? proof.expiresAt : null;
  if (isDeepStrictEqual(owner, region.owner) && (expiresAt === null || expiresAt === region.expiresAt)) return;
  const session = region.state === "sealed" ? null : region.session;
  store.change("change.journaled", [region, { owner, expiresAt, session }]);
  scheduleExpiry(store, region);
}

/** Every region that stands is proved as its row says; those of a storage that this host lacks keep what they have. */
function settleProofs(store: Store, rows: readonly RegionRecord[]): void {
  const absent = new Set(rows.filter(({ storageForm }) => !store.storages.has(storageForm)).map(({ token }) => token));
  const stands = (region: Region | undefined) => region !== undefined && !hasEnded(region.state);
  const isKept = (token: string) => absent.has(token) || stands(store.books.regionByToken(token));
  const { missing, cause } = store.proofs.settle(store.books.regions.after(0).filter(stands), isKept);
  if (missing === 0) return;
  store.warn(`Cannot prove ${missing} regions: if the journal is lost before the next start, they have no name`, cause);
}

/** A claim whose region was sealed just before the crash is done; one without a session is nobody's. */
function recoverClaims(store: Store, rows: readonly ClaimRow[]): void {
  for (const row of rows) {
    const session = store.books.findSession(row.session);
    const holder = store.books.findModel(row.model)?.names.get(row.name, row.version);
    const isBuilt = holder?.state === "sealed" && holder.token !== row.rebuilds;
    if (session === undefined || isBuilt) store.journal.deleteClaim(row.token);
    else store.claims.add({ ...row, session, built: findBuilt(session, row) });
  }
}

/** What was begun under a claim: nobody else could create that name since. */
function findBuilt(session: Session, { model, name, version }: ClaimRow): Region | null {
  const isBuilt = (region: Region) =>
    region.state !== "sealed" &&
    region.model === model &&
    (region.pendingName ?? region.name) === name &&
    region.version === version;
  return [...session.regions].findLast(isBuilt) ?? null;
}

/**
 * Regions whose session ended while they were leased, or just before a crash. Only now every lease is known. One that was
 * changed after its session ended has lost it from its row, but not its owner.
 */
function endAbandoned(store: Store): void {
  for (const region of [...store.books.regions.after(0)]) {
    const isSessions = region.session !== null || region.owner.kind === "session";
    if (!isSessions || hasEnded(region.state) || store.books.sessionOf(region) !== null) continue;
    void endForgotten(store, region);
  }
}

async function endForgotten(store: Store, region: Region): Promise<void> {
  try {
    if (endWithSession(store, region)) await freeRegion(store, region);
  } catch (error) {
    store.warn(`Cannot end ${describe(region)}, whose session has ended`, error);
  }
}

function recoverRequestedLeases(store: Store, rows: readonly RequestedLeaseRow[]): void {
  // Those without a key are older than any with one.
  const inOrder = rows.toSorted((a, b) => (a.key ?? 0) - (b.key ?? 0));
  for (const [index, { token, ttlMs, key = index + 1, createdBy = null, ...row }] of inOrder.entries()) {
    const region = store.books.regionByToken(row.region);
    const session = row.session === null ? null : (store.books.findSession(row.session) ?? null);
    if (region === undefined || (row.session !== null && session === null)) store.journal.deleteRequestedLease(token);
    else enterRequestedLease(store, { key, token, region, session, ttlMs, createdBy });
  }
}

/** A row without its file. A draining one was freed just before its row could go; any other was lost. */
function forget(store: Store, record: RegionRecord): void {
  try {
    store.journal.deleteRegion(record.key);
  } catch (error) {
    store.warn(`Cannot remove the row of ${describe(record)}; the next start tries again`, error);
  }
  const { createdAt: lastUsedAt } = record;
  const formerName = record.name ?? record.formerName;
  const isFreed = hasEnded(record.state);
  const state = nextState(record, isFreed ? "freed" : "lost");
  const region = { ...record, state, name: null, formerName, lastUsedAt };
  if (isFreed) store.emit({ type: "tensord.region.deleted", region, actor: undefined });
  else {
    const cause = store.storages.of(record).names.lossCause;
    store.books.ended.remember(region, describeLoss(cause), store.now());
    store.emit({ type: "tensord.region.lost", region, cause });
  }
}

/** Kept, but never entered: the server died between the two, and nobody was told of it. */
function drainOrphan(store: Store, storage: Storage, file: KeptFile): void {
  reviveRegion(store, toOrphan(store, storage, file), file);
}

function toOrphan(store: Store, storage: Storage, file: KeptFile): RegionRecord {
  const unentered = { token: file.token, model: defaultModelName, name: null, version: "", state: "creating" } as const;
  return {
    ...unentered,
    key: store.books.nextKey(),
    pendingName: null,
    formerName: null,
    state: nextState(unentered, "commit-refused"),
    reason: "orphaned",
    owner: { kind: "persist" },
    expiresAt: null,
    session: null,
    evictable: false,
    labels: {},
    revision: 1,
    storageForm: storage.form,
    format: "raw",
    identity: file.identity,
    byteSize: file.byteSize,
    dataOffset: 0,
    tensors: Tensors.none,
    checksum: null,
    stockWritable: false,
    createdAt: store.now(),
    createdBy: null,
    sealedAt: null,
  };
}
