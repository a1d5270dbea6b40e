/**
 * The maps of everything that is alive, and the sums that quotas are held against. Every change is synchronous and leaves
 * the sums right; nothing here waits, writes or emits.
 */

import assert from "node:assert/strict";
import { TensordError } from "../error.ts";
import type { ModelRow } from "../journal/journal-rows.ts";
import { limits } from "../limits.ts";
import { hostPool, parseId, parseRegionId, quote } from "../naming.ts";
import { KnownTokens } from "../storage/known-tokens.ts";
import { EndedRegions } from "./ended-regions.ts";
import type { EvictablePages } from "./evictable.ts";
import { hasEnded } from "./lifecycle.ts";
import { NameIndex } from "./name-index.ts";
import { OrderedIndex } from "./ordered-index.ts";
import { type DevicePool, Pool, Pools } from "./pool.ts";
import { type Model, noCounts, type Region, type RegionChange } from "./region.ts";
import type { Session } from "./session.ts";
import { SortedNames } from "./sorted-names.ts";

export const defaultModelName = "default";

/** @param told how it ended, if that is known. */
export function regionNotFound(id: string, told = "is deleted or never was"): TensordError {
  return new TensordError("region-not-found", `Cannot find region ${quote(id)}: it ${told}`, {
    hint: "List what exists, or look for it by its name.",
  });
}

export function sessionNotFound(id: string): TensordError {
  return new TensordError("session-not-found", `Cannot find session ${quote(id)}: it has ended or never was`, {
    hint: "Open another one. A session that is neither held nor renewed ends with its TTL.",
  });
}

export class Books {
  readonly #models = new Map<string, Model>();
  readonly #modelNames = new SortedNames();
  readonly #byToken = new Map<string, Region>();
  /** The tokens of its regions, for a thread that reads what others do with names. */
  readonly tokens = new KnownTokens();
  readonly regions = new OrderedIndex<Region>();
  /** What may be evicted once it is sealed, least recently used first. */
  readonly #evictables = new Set<Region | EvictablePages>();
  readonly #sessionsByToken = new Map<string, Session>();
  readonly sessions = new OrderedIndex<Session>();
  readonly counts = noCounts();
  readonly pools: Pools;
  /** What is no longer in these books. */
  readonly ended = new EndedRegions();
  /** Each hears of every change of a region, in the turn that makes it and before anything follows from it. */
  readonly changeListeners = new Set<(region: Region) => void>();
  #lastKey = 0;
  #lastSessionKey = 0;

  /**
   * @param hostLimitBytes of host memory, the journal's own pages among it.
   * @param devices those whose memory regions may be made of.
   */
  constructor(hostLimitBytes: number, devices: readonly DevicePool[] = []) {
    const ofDevices = devices.map(({ name, limitBytes }) => new Pool(name, limitBytes));
    this.pools = new Pools([new Pool(hostPool, hostLimitBytes, limits.journalBytes), ...ofDevices]);
  }

  nextKey(): number {
    this.#lastKey += 1;
    return this.#lastKey;
  }

  /** @throws TensordError `model-not-found`. */
  model(name: string): Model {
    const model = this.#models.get(name);
    if (model !== undefined && !model.closing) return model;
    throw new TensordError("model-not-found", `Cannot find model ${quote(name)}: it is not registered`, {
      hint: `Register it, or use the model "${defaultModelName}", which always exists.`,
    });
  }

  /** As `model`, or undefined. */
  findModel(name: string): Model | undefined {
    return this.#models.get(name);
  }

  get models(): ReadonlyMap<string, Model> {
    return this.#models;
  }

  /** At most `count` models by name, behind `name`. */
  modelsAfter(name: string, count: number): Model[] {
    return this.#modelNames.after(name, count).flatMap((each) => this.#models.get(each) ?? []);
  }

  addModel(row: ModelRow): Model {
    const model = toModel(row);
    this.#models.set(model.name, model);
    this.#modelNames.add(model.name);
    return model;
  }

  removeModel(model: Model): void {
    this.#models.delete(model.name);
    this.#modelNames.delete(model.name);
  }

  /** @throws TensordError `region-not-found`. */
  region(id: string): Region {
    const region = this.regionById(id);
    if (region !== undefined) return region;
    throw regionNotFound(id, this.ended.tellById(parseRegionId(id) ?? "", Date.now()));
  }

  /** As `region`, or undefined. */
  regionById(id: string): Region | undefined {
    const token = parseRegionId(id);
    return token === undefined ? undefined : this.#byToken.get(token);
  }

  regionByToken(token: string): Region | undefined {
    return this.#byToken.get(token);
  }

  /** The living session with this id. @throws TensordError `session-not-found`. */
  session(id: string): Session {
    const session = this.findSession(parseId("ses_", id) ?? "");
    if (session?.end === null) return session;
    throw sessionNotFound(id);
  }

  /** As `session`, by token, or undefined. */
  findSession(token: string): Session | undefined {
    return this.#sessionsByToken.get(token);
  }

  nextSessionKey(): number {
    this.#lastSessionKey += 1;
    return this.#lastSessionKey;
  }

  addSession(session: Session): void {
    this.#lastSessionKey = Math.max(this.#lastSessionKey, session.key);
    this.#sessionsByToken.set(session.token, session);
    this.sessions.append(session);
  }

  removeSession(session: Session): void {
    this.#sessionsByToken.delete(session.token);
    this.sessions.remove(session);
  }

  /** Enters a region in whatever state it has, and charges it. */
  add(region: Region): void {
    this.#lastKey = Math.max(this.#lastKey, region.key);
    this.#byToken.set(region.token, region);
    this.tokens.add(region.token);
    this.regions.append(region);
    region.modelBooks.regions.append(region);
    if (region.name !== null) region.modelBooks.names.add(region.name, region);
    this.sessionOf(region)?.regions.add(region);
    this.#placeEvictable(region);
    this.#count(region, 1);
  }

  /** Changes a region, and every map and sum in which it stands with it. `deleted` takes it out of the books. */
  change(region: Region, change: RegionChange): void {
    assert(this.#byToken.get(region.token) === region, "what is out of the books cannot change in them");
    const session = this.sessionOf(region);
    this.#count(region, -1);
    if (change.name !== undefined && change.name !== region.name) this.#rename(region, change.name);
    Object.assign(region, change);
    if (region.name !== null) region.modelBooks.names.refresh(region.name);
    if (this.sessionOf(region) !== session) session?.regions.delete(region);
    this.#placeEvictable(region);
    if (region.state === "deleted") this.#remove(region);
    else this.#count(region, 1);
    for (const listener of this.changeListeners) listener(region);
  }

  /** Another charge for the same memory: of a device it is known only now in what pieces it is given. */
  recharge(region: Region, chargedBytes: number): void {
    this.#count(region, -1);
    region.chargedBytes = chargedBytes;
    this.#count(region, 1);
  }

  /**
   * The session that is charged for a region, and with which it ends; null if none is, or no more: what drains is nobody's.
   * The region's token decides.
   */
  sessionOf({ session, state }: Pick<Region, "session" | "state">): Session | null {
    return session === null || hasEnded(state) ? null : (this.#sessionsByToken.get(session) ?? null);
  }

  /** What may be evicted, the least recently used first. */
  get evictables(): Iterable<Region | EvictablePages> {
    return this.#evictables;
  }

  /** Pages that may be evicted, and were used just now. */
  touchPages(pages: EvictablePages): void {
    this.#evictables.delete(pages);
    this.#evictables.add(pages);
  }

  removePages(pages: EvictablePages): void {
    this.#evictables.delete(pages);
  }

  /** Charges a model, and the server, for memory that is no region; negative bytes come back. */
  charge(model: Model, poolName: string, bytes: number): void {
    this.pools.get(poolName).usedBytes += bytes;
    model.pools.get(poolName).usedBytes += bytes;
  }

  /** Somebody was handed the region: it is the most recently used one. */
  touch(region: Region, now: number): void {
    region.lastUsedAt = now;
    this.#evictables.delete(region);
    this.#placeEvictable(region);
  }

  /** Enters or removes the region among what may be evicted, as the region itself says. */
  #placeEvictable(region: Region): void {
    if (region.evictable && !hasEnded(region.state)) this.#evictables.add(region);
    else this.#evictables.delete(region);
  }

  /** The old name is free from here on; the new one must be free. */
  #rename(region: Region, name: string | null): void {
    if (region.name !== null) region.modelBooks.names.remove(region.name, region);
    if (name !== null) region.modelBooks.names.add(name, region);
  }

  #remove(region: Region): void {
    this.#byToken.delete(region.token);
    this.tokens.remove(region.token);
    this.regions.remove(region);
    region.modelBooks.regions.remove(region);
  }

  /** Counts the region's charge in, or out with −1, where its state and its session say. */
  #count(region: Region, sign: 1 | -1): void {
    const bytes = sign * region.chargedBytes;
    const books = region.state === "draining" ? "drainingBytes" : "usedBytes";
    this.counts[region.state] += sign;
    region.modelBooks.counts[region.state] += sign;
    this.pools.get(region.poolName)[books] += bytes;
    region.modelBooks.pools.get(region.poolName)[books] += bytes;
    const listBytes = sign * region.listBytes;
    this.pools.get(hostPool)[books] += listBytes;
    region.modelBooks.pools.get(hostPool)[books] += listBytes;
    const session = this.sessionOf(region);
    if (session !== null) session.usedBytes += bytes + listBytes;
  }
}

/** A model without regions. Regions of one that is unregistered drain in books that nobody finds. */
export function toModel({ name, limits: ofPools, revision, createdAt }: ModelRow): Model {
  return {
    name,
    revision,
    createdAt,
    pools: Pools.of(ofPools),
    counts: noCounts(),
    closing: false,
    elasticPools: 0,
    names: new NameIndex(),
    regions: new OrderedIndex(),
  };
}
