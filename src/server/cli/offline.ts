/**
 * What an instance holds whose server is not running. It is read under the instance's lock: from the keeper as it lies
 * there, and from a copy of the journal outside of the shared memory, so that nothing of either is changed.
 */

import { copyFileSync, existsSync, lstatSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { count } from "../../memory/doctor/words.ts";
import { TensordError } from "../../memory/error.ts";
import { roundUpToPage } from "../../memory/host/capacity.ts";
import { Journal } from "../../memory/journal/journal.ts";
import type { ModelRow } from "../../memory/journal/journal-rows.ts";
import { Proofs } from "../../memory/journal/proofs.ts";
import type { RegionRecord } from "../../memory/journal/region-record.ts";
import type { SessionRecord } from "../../memory/journal/session-record.ts";
import { hostPool } from "../../memory/naming.ts";
import { defaultModelName } from "../../memory/state/books.ts";
import { idOfSession } from "../../memory/state/session.ts";
import type { Store } from "../../memory/state/store.ts";
import { InstanceDirectory, type InstanceLocation, toInstancePath } from "../../memory/storage/instance-directory.ts";
import type { KeptFile, Space, Storage } from "../../memory/storage/storage.ts";
import { Storages } from "../../memory/storage/storages.ts";
import { toClient, toRegionFacts } from "../../routes/to-wire.ts";
import type { Model, RegionDetail, RegionFacts, Session } from "./answers.ts";
import { openOfflineStorages } from "./offline-storages.ts";
import { toBytes } from "./table.ts";

/** A descriptor, and what the kernel says. When it was last used nobody knows but a running server. */
export type OfflineRegion = Omit<RegionFacts, "last_used_at"> &
  Pick<RegionDetail, "in_use" | "has_writers" | "lease_barred">;

export interface Offline {
  /** In the order of their creation. */
  readonly regions: readonly OfflineRegion[];
  /** Kept without a row: that was lost, or their creation was never answered. */
  readonly orphans: readonly KeptFile[];
  /** How many of those the next start adopts; it frees the others. */
  readonly adopted: number;
  /** Files that a server was making when it died, or had lying ready; the next start frees them. */
  readonly making: { readonly files: number; readonly bytes: number };
  /** Rows whose file is gone. */
  readonly lost: number;
  /** What regions take of each device. */
  readonly devices: readonly { readonly pool: string; readonly used: number; readonly draining: number }[];
  /** Of host memory. */
  readonly bytes: {
    readonly used: number;
    readonly draining: number;
    readonly orphans: number;
    readonly store: number;
  };
  readonly models: readonly Omit<Model, "revision" | "created_at" | "workers">[];
  /** Those that use most first. */
  readonly sessions: readonly Omit<Session, "held" | "expires_at">[];
  readonly space: Space;
}

/** @throws TensordError if there is no such instance, its server runs, or its directory is not ours. */
export async function readOffline(location: InstanceLocation): Promise<Offline> {
  using directory = openDirectory(location);
  using opened = await openOfflineStorages(directory);
  using store = copyStore(directory);
  const kept = new Map(
    [...opened.storages.all].flatMap((storage) => storage.names.kept().map((file) => [file.token, { storage, file }])),
  );
  const content = store.journal.read();
  const regions: OfflineRegion[] = [];
  let lost = 0;
  for (const record of content.regions) {
    const found = kept.get(record.token);
    kept.delete(record.token);
    if (found?.file.identity.ino === record.identity.ino) regions.push(toOffline(found, record));
    else if (record.state !== "draining") lost += 1;
  }
  const orphans = [...kept.values()];
  const { host, others } = splitByPool(regions);
  const isAdopted = ({ storage, file: { token, identity } }: Kept) =>
    store.journal.isAdopting || (storage.names.isPublished(token, identity) ?? store.proofs.find(token) !== undefined);
  return {
    regions,
    orphans: orphans.map(({ file }) => file),
    adopted: orphans.filter(isAdopted).length,
    making: occupiedBy(directory.path("new")),
    lost,
    devices: others,
    bytes: {
      ...host,
      orphans: orphans.reduce(
        (all, { storage: { memory }, file }) =>
          all + (memory.isCharged === false ? 0 : roundUpToPage(file.byteSize, memory.pageSize)),
        0,
      ),
      store: occupied(directory),
    },
    models: toModels(content.models, regions),
    sessions: content.sessions.map((record) => toSession(record, regions)).sort((a, b) => b.used_bytes - a.used_bytes),
    space: opened.shm[0].memory.space(),
  };
}

/** A sentence for each thing that the next start will have to deal with. */
export function describeLeftovers({ orphans, adopted, making, lost, bytes }: Offline): string[] {
  const freed = orphans.length - adopted;
  const deeds = [...(adopted > 0 ? [`adopts ${adopted}`] : []), ...(freed > 0 ? [`frees ${freed}`] : [])];
  const fate = `the next start ${deeds.join(" and ")}`;
  const files = `orphans    ${count(orphans.length, "region")} without a row, ${toBytes(bytes.orphans)}; ${fate}`;
  return [
    ...(orphans.length > 0 ? [files] : []),
    ...(making.files > 0
      ? [`unfinished ${count(making.files, "file")}, ${toBytes(making.bytes)}; the next start frees them`]
      : []),
    ...(lost > 0 ? [`lost       ${count(lost, "region")} whose memory is gone`] : []),
  ];
}

function openDirectory(location: InstanceLocation): InstanceDirectory {
  const path = toInstancePath(location);
  if (lstatSync(path, { throwIfNoEntry: false }) === undefined) {
    throw new TensordError("io-error", `Cannot look at instance ${location.instance}: ${path} is not there`, {
      hint: "Nothing is kept of it. Name another with --instance or --shm-dir.",
    });
  }
  try {
    return InstanceDirectory.open(location);
  } catch (error) {
    if (!(error instanceof TensordError) || error.facts.pid === undefined) throw error;
    const hint = "Ask that server: leave --offline out.";
    throw new TensordError(error.code, error.message, { ...error.facts, hint }, { cause: error });
  }
}

/** Journal and proofs in a directory of their own, where opening them may repair, migrate and write. */
function copyStore(original: InstanceDirectory): Disposable & { readonly journal: Journal; readonly proofs: Proofs } {
  using opened = new DisposableStack();
  const path = opened.adopt(mkdtempSync(join(tmpdir(), "tensord-offline-")), (made) =>
    rmSync(made, { recursive: true }),
  );
  const copy = opened.use(InstanceDirectory.open({ shmDirectory: path, instance: original.instance }));
  for (const name of readdirSync(original.path("store")).filter((file) => /^tensord\.sqlite(-wal)?$/.test(file))) {
    copyFileSync(original.path("store", name), copy.path("store", name));
  }
  const journal = opened.use(Journal.open(copy));
  if (existsSync(original.proofsPath)) copyFileSync(original.proofsPath, copy.proofsPath);
  const proofs = opened.use(new Proofs(copy.proofsPath));
  const all = opened.move();
  return { journal, proofs, [Symbol.dispose]: () => all.dispose() };
}

interface Kept {
  readonly storage: Storage;
  readonly file: KeptFile;
}

function toOffline({ storage, file: { token, identity } }: Kept, record: RegionRecord): OfflineRegion {
  const asked: Pick<Store, "storages"> = { storages: new Storages([storage]) };
  const region = { ...record, storageForm: storage.form, identity, lastUsedAt: record.createdAt };
  // A descriptor asks the store for no more than this.
  const { last_used_at, ...facts } = toRegionFacts(asked as Store, region);
  const { leased = false, written = false, barred = false } = storage.memory.usage(token) ?? {};
  return { ...facts, in_use: leased, has_writers: written, lease_barred: barred };
}

function toModels(rows: readonly ModelRow[], regions: readonly OfflineRegion[]): Offline["models"] {
  const limits = new Map(
    rows.map((row) => [row.name, new Map(row.limits.map(({ pool, limitBytes }) => [pool, limitBytes]))]),
  );
  const names = new Set([defaultModelName, ...limits.keys(), ...regions.map(({ model }) => model)]);
  return [...names].map((name) => {
    const own = regions.filter(({ model }) => model === name);
    const { host, others } = splitByPool(own);
    return {
      name,
      pools: [{ pool: hostPool, ...host }, ...others].map(({ pool, used, draining }) => ({
        pool,
        limit_bytes: limits.get(name)?.get(pool) ?? null,
        used_bytes: used,
        draining_bytes: draining,
      })),
      regions: own.length,
    };
  });
}

function toSession(record: SessionRecord, regions: readonly OfflineRegion[]): Offline["sessions"][number] {
  const id = idOfSession(record);
  const own = regions.filter((region) => region.session === id && !isDraining(region));
  return {
    id,
    name: record.name,
    client: record.client === null ? null : toClient(record.client),
    quota_bytes: record.quotaBytes,
    used_bytes: sum(own),
    regions: own.length,
    ttl_ms: record.ttlMs,
    created_by: record.createdBy,
    created_at: new Date(record.createdAt).toISOString(),
  };
}

/** What regions take of host memory, and of each device. */
function splitByPool(regions: readonly OfflineRegion[]) {
  const { [hostPool]: onHost = [], ...onDevices } = Object.groupBy(regions, poolOf);
  const others = Object.entries(onDevices).map(([pool, those = []]) => ({ pool, ...toUse(those) }));
  return { host: toUse(onHost), others };
}

function poolOf({ storage }: OfflineRegion): string {
  return storage.device_uuid ?? hostPool;
}

function toUse(regions: readonly OfflineRegion[]) {
  const draining = sum(regions.filter(isDraining));
  return { used: sum(regions) - draining, draining };
}

function isDraining({ state }: OfflineRegion): boolean {
  return state === "draining";
}

function sum(regions: readonly OfflineRegion[]): number {
  // What only points at a file takes nothing. Of a device its driver gives no memory of no bytes, and what it gives is whole pages of its own.
  return regions.reduce(
    (all, { storage }) =>
      all +
      (storage.device_uuid === null && storage.allocation_bytes > 0
        ? roundUpToPage(storage.byte_size, storage.page_size)
        : storage.allocation_bytes),
    0,
  );
}

function occupiedBy(folder: string): Offline["making"] {
  const names = readdirSync(folder);
  return { files: names.length, bytes: names.reduce((sum, name) => sum + statSync(folder + name).blocks * 512, 0) };
}

/** What the journal and the proofs occupy (stat(2): blocks of 512 bytes). */
function occupied(directory: InstanceDirectory): number {
  const folder = directory.path("store");
  const paths = [directory.proofsPath, ...readdirSync(folder).map((name) => folder + name)];
  return paths.reduce((all, path) => all + (statSync(path, { throwIfNoEntry: false })?.blocks ?? 0) * 512, 0);
}
