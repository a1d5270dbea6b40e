/**
 * A running server's diagnosis of itself: what its books know, and what a Worker finds on the host meanwhile. One at a
 * time, however many ask.
 */

import { setImmediate } from "node:timers/promises";
import type { DeviceReport } from "../host/device.ts";
import { describe } from "../journal/region-record.ts";
import { limits } from "../limits.ts";
import { hostPool, quote, toRegionId } from "../naming.ts";
import { isOutOfDescriptors } from "../os/descriptors.ts";
import { inspectName } from "../regions/public-name.ts";
import { type ElasticPool, idOfPool } from "../state/elastic.ts";
import type { Store } from "../state/store.ts";
import type { HeldDescriptors } from "../storage/fd-holder/held-descriptors.ts";
import { changeWords } from "../storage/file/origin.ts";
import type { InstanceDirectory } from "../storage/instance-directory.ts";
import { diagnose } from "./diagnose.ts";
import type {
  DescriptorFacts,
  DrainingRegion,
  HostFacts,
  MappedFileFacts,
  Question,
  ReserveFacts,
  ServerFacts,
} from "./facts.ts";
import type { Diagnosis } from "./finding.ts";
import { Gatherer } from "./gatherer.ts";
import { lookAtHolder } from "./look-at-holder.ts";
import { thresholds } from "./thresholds.ts";

export interface DoctorParts {
  readonly store: Store;
  readonly directory: InstanceDirectory;
  /** undefined: nobody keeps descriptors for this server. */
  readonly holder: HeldDescriptors | undefined;
  readonly settingBytes: number | undefined;
  /** Where the server listens, now. */
  readonly urls: () => readonly string[];
  /** Where the broker listens, now; null if it does not. */
  readonly brokerPath: () => string | null;
  /** What else TCP may be called. */
  readonly allowedHosts: readonly string[];
  /** What the server may open, and how many connections fit; undefined if that has no end. */
  readonly descriptors: () => DescriptorFacts | undefined;
  /** Runs `work` with the spare descriptors, while no connection is taken. */
  readonly undisturbed: <Result>(work: () => Promise<Result>) => Promise<Result>;
  /** The devices of this host, as of now. */
  readonly devices: () => Promise<DeviceReport>;
}

export class Doctor implements Disposable {
  readonly #parts: DoctorParts;
  readonly #gatherer = new Gatherer();
  #running: Promise<Diagnosis> | undefined;

  constructor(parts: DoctorParts) {
    this.#parts = parts;
  }

  /** Brings up its Worker, which it keeps from then on. */
  start(): Promise<void> {
    return this.#gatherer.start();
  }

  [Symbol.dispose](): void {
    this.#gatherer[Symbol.dispose]();
  }

  /** Whoever asks while one is under way gets that one. */
  diagnose(): Promise<Diagnosis> {
    this.#running ??= this.#diagnose().finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  async #diagnose(): Promise<Diagnosis> {
    const { store, directory, holder, settingBytes, allowedHosts } = this.#parts;
    const urls = this.#parts.urls();
    const draining = await findDraining(store);
    const question: Question = {
      instance: directory.instance,
      shmDirectory: directory.shmDirectory,
      socket: urls.find((url) => url.startsWith("unix://"))?.slice("unix://".length) ?? null,
      broker: this.#parts.brokerPath(),
      uid: process.geteuid?.() ?? 0,
      settingBytes,
      held: { shm: directory.shmPath, keep: directory.path("keep") },
      draining: draining.map(({ token }) => token),
    };
    const [host, held, devices] = await Promise.all([
      this.#gather(question),
      lookAtHolder(async () => holder?.status()),
      this.#parts.devices(),
    ]);
    const { books } = store;
    const pool = books.pools.get(hostPool);
    const server = {
      pid: process.pid,
      urls,
      allowedHosts,
      limitBytes: pool.limitBytes ?? 0,
      drainingRegions: books.counts.draining,
      drainingBytes: pool.drainingBytes,
      draining,
      ...lookAtPages(store),
      descriptors: this.#parts.descriptors() ?? null,
      reserve: toReserveFacts(store.reserve),
      toBeHeld: holder?.count ?? null,
      files: lookAtFiles(store),
      barred: new Map(host.barred.files.map(({ token }) => [token, describeToken(store, token)])),
    };
    return diagnose({ question, host, holder: held, devices, server, now: store.now() });
  }

  /** The Worker opens its files beside everybody else, so where no descriptor is left, nobody else may come meanwhile. */
  async #gather(question: Question): Promise<HostFacts> {
    try {
      return await this.#gatherer.gather(question);
    } catch (error) {
      if (!isOutOfDescriptors(error)) throw error;
      return await this.#parts.undisturbed(() => this.#gatherer.gather(question));
    }
  }
}

function lookAtPages({ elastic }: Store): Pick<ServerFacts, "elasticPools" | "overdue" | "owed"> {
  const overdue = elastic.overdue.map(({ pool, slot, client, isConnected, byteSize, since }) => ({
    pool: describePool(pool),
    worker: client === null ? `worker ${slot}` : `worker ${slot} (${client})`,
    isConnected,
    byteSize,
    sinceMs: since,
  }));
  const owed = elastic.owed.map(({ pool, page, isStuck, since, reason }) => ({
    pool: describePool(pool),
    page,
    isStuck,
    sinceMs: since,
    reason,
  }));
  return { elasticPools: elastic.count, overdue, owed };
}

/** A look at each, as whoever asks for one of these regions takes. */
function lookAtFiles(store: Store): MappedFileFacts {
  const { names, origin } = store.storages.get("file");
  const tokens = [...(origin?.tokens ?? [])];
  const changed: MappedFileFacts["changed"][number][] = [];
  for (const token of tokens) {
    const region = store.books.regionByToken(token);
    if (region === undefined || changed.length >= limits.listItems) continue;
    inspectName(store, region);
    const change = origin?.changeOf(token) ?? null;
    const path = names.address(token).path ?? "";
    if (change !== null) changed.push({ description: describe(region), path, state: changeWords[change] });
  }
  return { mapped: tokens.length, changed };
}

function describePool(pool: ElasticPool): string {
  return `${idOfPool(pool)} (model ${quote(pool.model.name)})`;
}

function toReserveFacts({ budgetBytes, bytes, absence, smallOnly, counts }: Store["reserve"]): ReserveFacts {
  const { hugeChunks, smallChunks } = counts;
  const why = { absence: absence ?? null, smallOnly: smallOnly ?? null };
  return { budgetBytes, bytes, ...why, hugeChunks, smallChunks };
}

function describeToken(store: Store, token: string): string {
  const region = store.books.regionByToken(token);
  return region === undefined ? toRegionId(token) : describe(region);
}

/** Draining regions, the oldest first, found in slices so that the event loop stays free. */
async function findDraining(store: Store): Promise<DrainingRegion[]> {
  const found: DrainingRegion[] = [];
  const isEnough = () => found.length >= Math.min(store.books.counts.draining, thresholds.shownItems);
  for (let key = 0, more = true; more && !isEnough(); await setImmediate()) {
    more = false;
    for (const region of [...store.books.regions.after(key).take(limits.sweepSlice)]) {
      key = region.key;
      more = true;
      if (region.state !== "draining") continue;
      const { token, byteSize, waitsFor } = region;
      found.push({ token, description: describe(region), byteSize, waitsFor });
    }
  }
  return found;
}
