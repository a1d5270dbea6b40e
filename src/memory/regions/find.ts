/** Finding regions: by id, by name (also one that is yet to come), and page by page. Reads only; nothing is O(regions). */

import { TensordError } from "../error.ts";
import type { State } from "../journal/region-record.ts";
import { limits } from "../limits.ts";
import { quote } from "../naming.ts";
import type { Region } from "../state/region.ts";
import type { Session } from "../state/session.ts";
import type { Store } from "../state/store.ts";
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

/**
 * The region that holds a name. With `waitMs` it waits until there is one and it is sealed; when the time is over it
 * answers with what is there.
 * @throws TensordError `region-not-found`, `model-not-found`, `shutting-down`.
 */
export async function findRegionByName(
  store: Store,
  { model, name, version }: NamedRegion,
  waitMs: number,
  signal: AbortSignal,
): Promise<Region> {
  const deadline = performance.now() + waitMs;
  const stop = AbortSignal.any([signal, store.stopping]);
  for (;;) {
    const region = store.books.findModel(model)?.names.find(name, version);
    if (region?.state === "sealed") return touch(store, region);
    const leftMs = deadline - performance.now();
    if (leftMs > 0) {
      await store.waiters.wait(model, name, leftMs, stop);
      continue;
    }
    if (region !== undefined) return touch(store, region);
    store.books.model(model);
    throw new TensordError(
      "region-not-found",
      `Cannot find region ${quote(name)} of model ${quote(model)}: ${describeAbsence(version, waitMs)}`,
      { hint: "Create it with POST /v1/regions, or wait for it with the header Prefer: wait=30." },
    );
  }
}

function describeAbsence(version: string | undefined, waitMs: number): string {
  const held = version === undefined ? "the name" : `version ${JSON.stringify(version)} of the name`;
  return `nobody has ${held}${waitMs > 0 ? `, waited for ${waitMs} ms` : ""}`;
}

function touch(store: Store, region: Region): Region {
  store.books.touch(region, store.now());
  inspectName(store, region);
  return region;
}

export interface Filter {
  readonly model?: string | undefined;
  readonly name?: string | undefined;
  readonly version?: string | undefined;
  /** The session that ends them: its own, and what it builds. What drains is nobody's any more. */
  readonly session?: string | undefined;
  readonly state?: State | undefined;
  readonly label?: readonly [key: string, value: string] | undefined;
}

export interface Page {
  readonly regions: readonly Region[];
  /** Where the next page begins, or null at the end. A page may be short and still have a next one. */
  readonly nextCursor: string | null;
}

/**
 * One page in the order of creation, after `cursor`. Looks at a bounded number of regions however rare a match is.
 * @throws TensordError `model-not-found`, `session-not-found`, `validation-failed` for a cursor that is none.
 */
export function listRegions(store: Store, filter: Filter, limit: number, cursor: string | undefined): Page {
  const model = filter.model === undefined ? undefined : store.books.model(filter.model);
  const session = filter.session === undefined ? undefined : store.books.session(filter.session);
  if (model !== undefined && filter.name !== undefined) {
    const named = [...model.names.all(filter.name)].filter((region) => matches(region, filter, session));
    return { regions: named.sort((a, b) => a.key - b.key), nextCursor: null };
  }
  const regions: Region[] = [];
  let looked = 0;
  const after = parseCursor(cursor);
  for (const region of ownedAfter(session, after) ?? (model ?? store.books).regions.after(after)) {
    if (matches(region, filter, session)) regions.push(region);
    looked += 1;
    if (regions.length === limit || looked === limits.listScan) return { regions, nextCursor: String(region.key) };
  }
  return { regions, nextCursor: null };
}

/** The session's regions above `key`, unless they are so many that the index of all is as good. It got them in this order. */
function ownedAfter(session: Session | undefined, key: number): readonly Region[] | undefined {
  if (session === undefined || session.regions.size > limits.listScan) return undefined;
  return [...session.regions].filter((region) => region.key > key);
}

function matches(
  region: Region,
  { model, name, version, state, label }: Filter,
  session: Session | undefined,
): boolean {
  if (session !== undefined && !session.regions.has(region)) return false;
  if (model !== undefined && region.model !== model) return false;
  if (name !== undefined && region.name !== name) return false;
  if (version !== undefined && region.version !== version) return false;
  if (state !== undefined && region.state !== state) return false;
  return label === undefined || (Object.hasOwn(region.labels, label[0]) && region.labels[label[0]] === label[1]);
}

function parseCursor(cursor: string | undefined): number {
  const key = cursor === undefined ? 0 : /^\d{1,16}$/.test(cursor) ? Number(cursor) : Number.NaN;
  if (Number.isSafeInteger(key)) return key;
  throw new TensordError("validation-failed", `Cannot continue the list: ${quote(cursor ?? "")} is no cursor`, {
    hint: "Pass the next_cursor of the page before, unchanged, or leave it out to begin.",
  });
}
