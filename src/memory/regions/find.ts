/** Finding regions by id and by name, also one that is yet to come. Reads only. */

import { TensordError } from "../error.ts";
import { quote } from "../naming.ts";
import type { Region } from "../state/region.ts";
import type { Store } from "../state/store.ts";
import { noteFetch } from "./consumers.ts";
import { inspectName } from "./public-name.ts";

/** The region with this id; its public name is looked at, and mended, on the way. @throws TensordError `region-not-found`. */
export function findRegion(store: Store, id: string): Region {
  touch(store, store.books.region(id));
  // The look at its name may have found that it is lost.
  return store.books.region(id);
}

/** Whom a client means: without a version the newest that is sealed, or, where none is, the newest. */
export interface NamedRegion {
  readonly model: string;
  readonly name: string;
  readonly version?: string | undefined;
}

export interface Finding {
  readonly waitMs: number;
  /** Whether who asks is about to map it. Without it this is a look, which waits for nobody. */
  readonly isFetch: boolean;
}

/**
 * The region that holds a name. With `waitMs` it waits until there is one and it is sealed; when the time is over it
 * answers with what is there.
 * @throws TensordError `region-not-found`, `model-not-found`, `shutting-down`.
 */
export async function findRegionByName(
  store: Store,
  named: NamedRegion,
  { waitMs, isFetch }: Finding,
  signal: AbortSignal,
): Promise<Region> {
  const deadline = performance.now() + waitMs;
  const stop = AbortSignal.any([signal, store.stopping]);
  for (;;) {
    const found = lookUp(store, named);
    if (found !== undefined) touch(store, found);
    // The look at its public name may have found that it is lost.
    const region = found?.state === "deleted" ? undefined : found;
    const leftMs = deadline - performance.now();
    if (region?.state === "sealed" || leftMs <= 0) {
      const answered = region ?? refuse(store, named, waitMs);
      if (isFetch) noteFetch(store, answered);
      return answered;
    }
    await store.waiters.wait(named.model, named.name, leftMs, stop);
  }
}

/** The region that holds a name now; asking is no use of it. @throws TensordError `region-not-found`, `model-not-found`. */
export function regionByName(store: Store, named: NamedRegion): Region {
  return lookUp(store, named) ?? refuse(store, named, 0);
}

/** The region that holds a name now, if one does. */
export function lookUp(store: Store, { model, name, version }: NamedRegion): Region | undefined {
  return store.books.findModel(model)?.names.find(name, version);
}

/** @throws TensordError always: nobody has the name. */
export function refuse(store: Store, { model, name, version }: NamedRegion, waitMs: number): never {
  store.books.model(model);
  const told = store.books.ended.tellByName(model, name, version, store.now());
  const end = told === undefined ? "" : `; the last that had it ${told}`;
  throw new TensordError(
    "region-not-found",
    `Cannot find region ${quote(name)} of model ${quote(model)}: ${describeAbsence(version, waitMs)}${end}`,
    { hint: "Create it, or wait until somebody does." },
  );
}

function describeAbsence(version: string | undefined, waitMs: number): string {
  const held = version === undefined ? "the name" : `version ${JSON.stringify(version)} of the name`;
  return `nobody has ${held}${waitMs > 0 ? `, waited for ${waitMs} ms` : ""}`;
}

/** Somebody asks for the region, and is about to map it: a use, and a look at its public name, which may find it lost. */
export function touch(store: Store, region: Region): void {
  store.books.touch(region, store.now());
  inspectName(store, region);
}
