/**
 * What clients say of a region before its locks can show it: that one is about to map it, maps it, or let go. For hand-offs
 * that is what ends them in time; whatever is said, the locks decide whether somebody maps them.
 */

import { hasEnded } from "../state/lifecycle.ts";
import type { Region } from "../state/region.ts";
import type { Session } from "../state/session.ts";
import type { Store } from "../state/store.ts";
import { expireRegion, scheduleExpiry } from "./expire.ts";

/** Somebody was answered with the region so that he may map it. */
export function noteFetch(store: Store, region: Region): void {
  const { handOff } = region;
  if (handOff === null) return;
  handOff.fetches += 1;
  handOff.fetchedAt = store.now();
  handOff.isLetGo = false;
  // It may be mapped for a moment only: its locks are looked at often from now on.
  scheduleExpiry(store, region);
}

/** Somebody was answered with the region's open file, and its lease: nothing is awaited any more that only he could tell. */
export function noteHandedOut(store: Store, region: Region): void {
  const { handOff } = region;
  if (handOff === null) return;
  handOff.consumedAt = store.now();
  handOff.isLetGo = false;
  scheduleExpiry(store, region);
}

/** A mapping, as its client reports it. Without `isMaker` the client does not know of makers. */
export interface MappingReport {
  readonly writable: boolean;
  readonly isMaker: boolean | undefined;
}

export function reportAttach(store: Store, session: Session, region: Region, report: MappingReport): void {
  const { handOff } = region;
  const isConsumer = report.isMaker === undefined ? handOff?.isTelling === true : !report.isMaker;
  store.holders.attach(session, region, { isConsumer, writable: report.writable });
  if (handOff === null || !isConsumer) return;
  handOff.consumedAt = store.now();
  handOff.isLetGo = false;
  handOff.fetches = Math.max(0, handOff.fetches - 1);
}

export function reportDetach(store: Store, session: Session, region: Region, isMaker: boolean | undefined): void {
  if (store.holders.detach(session, region, isMaker === true)) noteLetGo(store, region);
}

/** The session's process is gone, or lets go of everything. */
export function detachAll(store: Store, session: Session): void {
  for (const region of store.holders.forgetSession(session)) noteLetGo(store, region);
}

/** One consumer fewer. The last one ends a hand-off now, or as soon as its lock is gone. */
function noteLetGo(store: Store, region: Region): void {
  const { handOff } = region;
  if (handOff === null || hasEnded(region.state)) return;
  handOff.consumedAt = store.now();
  handOff.isLetGo = store.holders.consumersOf(region) === 0;
  scheduleExpiry(store, region);
  void expireRegion(store, region);
}
