/** Opens an instance's store: lock, limit, journal, recovery, watch. Closing it keeps every region. */

import { readFileSync, statfsSync } from "node:fs";
import { saveEvents, takeEvents } from "../events/event-file.ts";
import { EventLog } from "../events/event-log.ts";
import { type GlobalLimit, globalLimit } from "../host/capacity.ts";
import { findMemoryLimits } from "../host/cgroup.ts";
import type { ElasticContent } from "../journal/elastic-rows.ts";
import { Journal } from "../journal/journal.ts";
import { Proofs } from "../journal/proofs.ts";
import { limits } from "../limits.ts";
import { hostPool } from "../naming.ts";
import { stopOperations } from "../operations/run.ts";
import { expireRegion } from "../regions/expire.ts";
import { tryFree } from "../regions/free.ts";
import { NameWatch } from "../regions/name-watch.ts";
import { inspectName } from "../regions/public-name.ts";
import { expireRequestedLease } from "../regions/requested-lease.ts";
import { expireSession } from "../sessions/sessions.ts";
import { Agenda } from "../state/agenda.ts";
import { Books } from "../state/books.ts";
import type { ElasticPools } from "../state/elastic.ts";
import type { Region } from "../state/region.ts";
import type { RequestedLease, Session } from "../state/session.ts";
import type { OnStep } from "../state/steps.ts";
import { type EventWriter, Store } from "../state/store.ts";
import type { StoreEvent } from "../state/store-event.ts";
import type { FdHolder } from "../storage/fd-holder/fd-holder.ts";
import { HeldDescriptors, type HeldOptions } from "../storage/fd-holder/held-descriptors.ts";
import { FileStorage } from "../storage/file/file-storage.ts";
import { HeapStorage } from "../storage/heap/heap-storage.ts";
import { SpareInodes } from "../storage/inodes.ts";
import { InstanceDirectory, type InstanceLocation } from "../storage/instance-directory.ts";
import { HostLanes } from "../storage/lane.ts";
import { openMemfdStorages, unlessRefused } from "../storage/memfd/memfd-storage.ts";
import { Memfds } from "../storage/memfd/memfds.ts";
import { PromisedPages } from "../storage/shm/promised-pages.ts";
import { ShmStorage } from "../storage/shm/shm-storage.ts";
import { makeShmDirectory } from "../storage/shm-directory.ts";
import { isDeviceForm, type Storage, toDeviceUuid } from "../storage/storage.ts";
import { type Absences, type OfferedKind, Storages } from "../storage/storages.ts";
import { type AwaitedDevices, settleDevices, toDevicePool } from "./awaited-devices.ts";
import { hasHugeFiles, openReserve, type ReserveOptions } from "./open-reserve.ts";
import { recoverStore } from "./recover.ts";

export interface StoreOptions extends InstanceLocation {
  /** The operator's bound of all regions together; undefined leaves it to the host. */
  readonly memoryLimitBytes: number | undefined;
  /** The kinds of storage that new regions may be made of; undefined are all that this host has. */
  readonly offered?: readonly OfferedKind[] | undefined;
  /** Folders whose files regions may be; left out: none. */
  readonly modelRoots?: readonly string[] | undefined;
  /** What lies ready for regions to come; undefined: nothing does. */
  readonly reserve?: ReserveOptions | undefined;
  readonly onWarning: (message: string, error: unknown) => void;
  readonly toEventText: EventWriter;
  /** Hears of each change from the beginning, the recovery's included. */
  readonly onEvent?: (event: StoreEvent) => void;
  readonly onStep?: OnStep;
  /** How an fd holder keeps the memory of regions without a name while no server runs; undefined: they end with this one. */
  readonly holder?: Pick<HeldOptions, "ttlMs" | "onOpen" | "onClose"> | undefined;
  /** Who keeps it instead of such a process; the caller's to end. */
  readonly fdHolder?: FdHolder;
  /** Further things that regions can be made of. */
  readonly storages?: (parts: StorageParts) => MoreStorages | Promise<MoreStorages>;
}

/** What a further storage is made with. */
export interface StorageParts {
  readonly directory: InstanceDirectory;
  /** Files without a name, which the fd holder keeps, if there is one. */
  readonly memfds: Memfds;
  /** The UUIDs of devices that an earlier server had regions on. */
  readonly formerDevices: readonly string[];
  readonly onStep: OnStep | undefined;
  readonly onWarning: StoreOptions["onWarning"];
}

export interface MoreStorages {
  /** The store disposes of them. */
  readonly storages: readonly (Storage & Disposable)[];
  /** Why there are none of a kind. */
  readonly absences?: Absences;
  /** Devices that are still looked for: the start does not wait for them. */
  readonly awaited?: AwaitedDevices;
  /** What they work with, which ends with the store. */
  readonly lanes?: Disposable;
  /** Brings up Workers, without a word to any driver. */
  start?(): Promise<void>;
  /** Makes what there is of elastic pools, those of an earlier server among it; once regions and sessions are back. */
  openElastic?(store: Store, rows: readonly ElasticContent[]): Promise<ElasticPools>;
}

export interface OpenStore extends AsyncDisposable {
  readonly store: Store;
  readonly limit: GlobalLimit;
  readonly directory: InstanceDirectory;
  readonly spareInodes: SpareInodes;
  readonly holder: HeldDescriptors | undefined;
  /** Brings up every Worker that would come up at its first job, and waits for the others. */
  start(): Promise<void>;
}

/**
 * @returns the store, ready for requests. Dispose of it to give the instance's lock back.
 * @throws TensordError if another server holds the instance, a directory is not ours, or no memory is left for a pool.
 */
export async function openStore(options: StoreOptions): Promise<OpenStore> {
  await using opened = new AsyncDisposableStack();
  makeShmDirectory(options.shmDirectory);
  const directory = opened.use(InstanceDirectory.open(options));
  let watch: NameWatch | undefined;
  // Almost last: what is under way at a stop must not go on while a thread ends.
  opened.defer(() => watch?.ended);
  const limit = globalLimit({
    settingBytes: options.memoryLimitBytes,
    tmpfsBytes: sizeOf(directory.shmPath),
    memoryLimits: findMemoryLimits(readIfThere),
  });
  const spareInodes = opened.use(new SpareInodes(directory));
  const journal = await spareInodes.lend("open the journal", () => Journal.open(directory));
  let events: EventLog | undefined;
  opened.defer(() => {
    // In one turn: whatever is done until then has its event, which is kept, and nothing is done after it.
    journal[Symbol.dispose]();
    if (events !== undefined) keepEvents(journal, events, options.onWarning);
  });
  if (journal.damage !== undefined) {
    const { setAsideAs, cause } = journal.damage;
    options.onWarning(`The journal is damaged and was set aside as ${setAsideAs}; regions are adopted`, cause);
  }
  const proofs = opened.use(new Proofs(directory.proofsPath));
  if (proofs.distrust !== undefined) {
    options.onWarning(`The proofs of names are not believed, and are written anew: ${proofs.distrust}`, undefined);
  }
  const lanes = opened.use(new HostLanes());
  const { onStep, onWarning } = options;
  const holder = options.holder && new HeldDescriptors({ ...options.holder, place: directory, onWarning, onStep });
  const memfds = opened.use(await Memfds.open(directory.instance, holder ?? options.fdHolder));
  // Disposed of before the descriptors are closed, of which it would give copies to a new fd holder.
  opened.defer(() => holder?.[Symbol.dispose]());
  const formerDevices = findFormerDevices(journal, memfds);
  const more = (await options.storages?.({ directory, memfds, formerDevices, onStep, onWarning })) ?? { storages: [] };
  opened.use(more.lanes);
  for (const storage of more.storages) opened.use(storage);
  const promised = new PromisedPages();
  const reserve = opened.use(
    openReserve(options.reserve, {
      directory,
      promised,
      lanes,
      limitBytes: limit.limitBytes,
      roomBytes: () => store.books.pools.get(hostPool).freeBytes,
      onStep,
      onWarning,
    }),
  );
  for (const each of [journal, proofs]) each.makeRoom = () => reserve.giveUp();
  journal.tensorFiles.makeRoom = () => reserve.giveBack();
  const files = new FileStorage(directory, lanes, options.modelRoots ?? []);
  const shm = { onStep, reserve, promised, hasHugeFiles: hasHugeFiles(directory.shmDirectory) };
  const all = [
    new ShmStorage(directory, lanes, shm),
    new ShmStorage(directory, lanes, { ...shm, isPrivate: true }),
    ...openMemfdStorages(memfds, lanes, onStep),
    ...unlessRefused(() => new HeapStorage(memfds, lanes, onStep)),
    files,
    ...more.storages,
  ];
  const { withheld } = files.origin;
  const absences = { file: withheld?.reason ?? "its regions are files that are loaded to be mapped", ...more.absences };
  const storages = new Storages(all, options.offered, absences, more.awaited?.reason);
  events = openEvents(journal, options.onWarning);
  const draining = new Agenda<Region>(limits.drainPollSlice, (region) => void tryFree(store, region));
  const expiring = new Agenda<Region>(limits.drainPollSlice, (region) => void expireRegion(store, region));
  const mending = new Agenda<Region>(limits.drainPollSlice, (region) => inspectName(store, region));
  const endingSessions = new Agenda<Session>(limits.drainPollSlice, (session) => expireSession(store, session));
  const endingRequestedLeases = new Agenda<RequestedLease>(limits.drainPollSlice, (lease) =>
    expireRequestedLease(store, lease),
  );
  const store: Store = new Store({
    instance: directory.instance,
    books: new Books(limit.limitBytes, all.flatMap(toDevicePool)),
    journal,
    proofs,
    storages,
    reserve,
    tensorFiles: journal.tensorFiles,
    events,
    toEventText: options.toEventText,
    epoch: journal.raiseEpoch(),
    draining: opened.use(draining),
    expiring: opened.use(expiring),
    mending: opened.use(mending),
    endingSessions: opened.use(endingSessions),
    endingRequestedLeases: opened.use(endingRequestedLeases),
    onWarning: options.onWarning,
    onStep: options.onStep,
  });
  files.listen((token) => {
    const region = store.books.regionByToken(token);
    if (region !== undefined && !store.isClosing) inspectName(store, region);
  });
  opened.use(store.feeder);
  opened.use(store.downloads);
  opened.use(store.layouts);
  if (options.onEvent !== undefined) store.listen(options.onEvent);
  const { elastic: rows } = await recoverStore(store);
  if (more.openElastic !== undefined) store.elastic = await more.openElastic(store, rows);
  const names = opened.use(new NameWatch(store, directory.shmPath));
  watch = names;
  opened.defer(() => store.close());
  if (more.awaited !== undefined) void settleDevices(store, more.awaited);
  // Before anything that they need is closed.
  opened.defer(() => store.elastic.stop());
  opened.defer(() => stopOperations(store));
  const everything = opened.move();
  return {
    store,
    limit,
    directory,
    spareInodes,
    holder,
    async start() {
      await Promise.all([names.started, store.layouts.start(), lanes.start(), reserve.start(), more.start?.()]);
    },
    [Symbol.asyncDispose]: () => everything.disposeAsync(),
  };
}

/** By the rows of their regions and elastic pools, and by what the fd holder has of those whose rows are lost. */
function findFormerDevices(journal: Journal, memfds: Memfds): string[] {
  const forms = [...journal.formsAtOpening].filter(isDeviceForm);
  const uuids = [...memfds.deviceForms.union(new Set(forms))].map(toDeviceUuid);
  return [...journal.devicesAtOpening.union(new Set(uuids))];
}

/** The events that the last server kept, if it stopped in order; else none, under numbers that nobody has seen. */
function openEvents(journal: Journal, onWarning: StoreOptions["onWarning"]): EventLog {
  const history = takeEvents(journal.eventsPath) ?? { next: journal.nextSequence(), events: [] };
  return new EventLog(history, (end) => {
    try {
      journal.reserveSequences(end);
      return true;
    } catch (error) {
      onWarning("Cannot reserve numbers for events in the journal; the next event tries again", error);
      return false;
    }
  });
}

/** Losing them costs those who resume a gap, and nothing else, so a full file system must not keep the server from stopping. */
function keepEvents(journal: Journal, events: EventLog, onWarning: StoreOptions["onWarning"]): void {
  try {
    saveEvents(journal.eventsPath, events.history());
  } catch (error) {
    onWarning("Cannot keep the events for the next start: those who resume will be told of a gap", error);
  }
}

function sizeOf(path: string): number {
  const { blocks, bsize } = statfsSync(path);
  return blocks * bsize;
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}
