/**
 * Claims: of N workers that want a name to be built, one is the builder and the others wait for the sealed region. If the
 * builder's session ends, the next in line builds.
 */

import { TensordError } from "../error.ts";
import { idOf } from "../journal/region-record.ts";
import { limits } from "../limits.ts";
import { createToken, parseId, quote } from "../naming.ts";
import type { ClaimedName } from "../state/claim-index.ts";
import type { Region } from "../state/region.ts";
import { type Claim, describeSession, idOfSession, type Session } from "../state/session.ts";
import type { Store } from "../state/store.ts";
import { noteFetch } from "./consumers.ts";

export type ClaimAnswer =
  | { readonly role: "builder"; readonly claim: Claim }
  | { readonly role: "reader"; readonly region: Region | undefined };

export interface ClaimRequest {
  readonly model: string;
  readonly name: string;
  /** Which build; undefined means whichever there is, and "" if there is none. */
  readonly version: string | undefined;
  readonly session: Session;
  readonly key: string | null;
  /** The id of a sealed region that is to be built anew: for this claim it counts as if it were not there. */
  readonly rebuild: string | undefined;
}

/**
 * The builder's part if the name is free, else the sealed region, for which it waits up to `waitMs`. A reader without a
 * region is one whose time is over: somebody else builds still.
 * @throws TensordError `model-not-found`, `session-not-found` if the session ends meanwhile, `too-many-requests`.
 */
export async function claimName(
  store: Store,
  request: ClaimRequest,
  waitMs: number,
  signal: AbortSignal,
): Promise<ClaimAnswer> {
  const { model, name, session, key, rebuild } = request;
  // Only of one and the same version another region than the one that was seen is a newer one.
  const version = rebuild === undefined ? request.version : (request.version ?? "");
  const deadline = performance.now() + waitMs;
  const stop = AbortSignal.any([signal, store.stopping]);
  for (;;) {
    store.refuseIfStopping();
    store.books.session(idOfSession(session));
    const holder = store.books.model(model).names.find(name, version);
    const stale = holder?.state === "sealed" && idOf(holder) === rebuild ? holder : undefined;
    const region = stale === undefined ? holder : undefined;
    if (region?.state === "sealed") {
      store.books.touch(region, store.now());
      noteFetch(store, region);
      return { role: "reader", region };
    }
    const claim = store.claims.of({ model, name, version: version ?? "" });
    if (claim !== undefined && claim.session === session && key !== null && claim.key === key) {
      return { role: "builder", claim };
    }
    if (claim === undefined && region === undefined) return { role: "builder", claim: grant(store, request, stale) };
    const leftMs = deadline - performance.now();
    if (leftMs <= 0) return { role: "reader", region };
    await store.waiters.wait(model, name, leftMs, stop);
  }
}

function grant(
  store: Store,
  { model, name, version = "", session, key }: ClaimRequest,
  stale: Region | undefined,
): Claim {
  if (store.claims.size >= limits.claims) {
    throw new TensordError(
      "too-many-requests",
      `Cannot claim a name: ${limits.claims} are claimed, the most that may`,
      {
        hint: "Build what is claimed, or end the sessions that hold claims without building.",
      },
    );
  }
  const row = { token: createToken(), model, name, version, key, rebuilds: stale?.token ?? null };
  const claim = { ...row, session, built: null };
  store.journal.insertClaim({ ...row, session: session.token });
  store.step("claim.journaled");
  store.claims.add(claim);
  return claim;
}

/** Gives the right up: the next in line builds. */
export function releaseClaim(store: Store, claim: Claim): void {
  if (store.claims.of(claim) !== claim) return;
  store.journal.deleteClaim(claim.token);
  store.step("claim.row-deleted");
  store.claims.remove(claim);
  store.waiters.wake(claim.model, claim.name);
}

/**
 * The claim under which a region of this name is made, or undefined if none is needed.
 * @throws TensordError `name-claimed` if somebody else has the right, `claim-not-found` if `id` is not the one.
 */
export function checkClaim(store: Store, built: ClaimedName, id: string | undefined): Claim | undefined {
  if (id !== undefined) return findClaim(store, built, id);
  const claim = store.claims.of(built);
  if (claim === undefined) return undefined;
  throw new TensordError(
    "name-claimed",
    `Cannot create ${quote(claim.model)}/${quote(claim.name)}: ${describeSession(claim.session)} has the right to build it`,
    {
      session: describeSession(claim.session),
      hint: "Claim the name: you wait for who builds it, and get what is built, or your turn.",
    },
  );
}

/** @throws TensordError `claim-not-found`. */
export function findClaim(store: Store, built: ClaimedName, id: string): Claim {
  const claim = store.claims.of(built);
  if (claim !== undefined && claim.token === parseId("clm_", id)) return claim;
  throw claimNotFound(id);
}

export function claimNotFound(id: string): TensordError {
  return new TensordError("claim-not-found", `Cannot build under claim ${quote(id)}: it is released or never was`, {
    hint: "A claim ends with its session, and when its region is sealed. Claim the name again.",
  });
}
