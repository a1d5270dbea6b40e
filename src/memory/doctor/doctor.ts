/**
 * A running server's diagnosis of itself: what its books know, and what a Worker finds on the host meanwhile. One at a
 * time, however many ask.
 */

import { setImmediate } from "node:timers/promises";
import { describe } from "../journal/region-record.ts";
import { limits } from "../limits.ts";
import { hostPool } from "../naming.ts";
import type { Store } from "../state/store.ts";
import type { InstanceDirectory } from "../storage/instance-directory.ts";
import { diagnose } from "./diagnose.ts";
import type { DrainingRegion, HostFacts, Question } from "./facts.ts";
import type { Diagnosis } from "./finding.ts";
import { thresholds } from "./thresholds.ts";

export interface DoctorParts {
  readonly store: Store;
  readonly directory: InstanceDirectory;
  readonly settingBytes: number | undefined;
  /** Where the server listens, now. */
  readonly urls: () => readonly string[];
  /** What else TCP may be called. */
  readonly allowedHosts: readonly string[];
}

export class Doctor {
  readonly #parts: DoctorParts;
  #running: Promise<Diagnosis> | undefined;

  constructor(parts: DoctorParts) {
    this.#parts = parts;
  }

  /** Whoever asks while one is under way gets that one. */
  diagnose(): Promise<Diagnosis> {
    this.#running ??= this.#diagnose().finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  async #diagnose(): Promise<Diagnosis> {
    const { store, directory, settingBytes, allowedHosts } = this.#parts;
    const urls = this.#parts.urls();
    const draining = await findDraining(store);
    const question: Question = {
      instance: directory.instance,
      shmDirectory: directory.shmDirectory,
      socket: urls.find((url) => url.startsWith("unix://"))?.slice("unix://".length) ?? null,
      uid: process.geteuid?.() ?? 0,
      settingBytes,
      held: { shm: directory.shmPath, keep: directory.path("keep") },
      draining: draining.map(({ token }) => token),
    };
    const host = await gather(question);
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
    };
    return diagnose({ question, host, server, now: store.now() });
  }
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

async function gather(question: Question): Promise<HostFacts> {
  const { promise, resolve, reject } = Promise.withResolvers<HostFacts>();
  const worker = new Worker(new URL("./gather.worker.ts", import.meta.url).href);
  const timer = setTimeout(() => reject(new Error("the host's facts took too long")), thresholds.gatherMs);
  worker.onmessage = (event: MessageEvent<HostFacts>) => resolve(event.data);
  worker.onerror = (event) => reject(new Error(`the Worker of a diagnosis died: ${event.message}`));
  worker.postMessage(question);
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
    worker.terminate();
  }
}
