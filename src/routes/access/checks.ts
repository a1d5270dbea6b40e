/**
 * What handlers ask before they touch anything: whether the caller may. What a caller may not see is not there for it, so that no
 * answer tells of it; what it sees and may not change is `forbidden`, with whose it is.
 */

import { isBelowRoots } from "../../loaders/source/model-roots.ts";
import { TensordError } from "../../memory/error.ts";
import { describe } from "../../memory/journal/region-record.ts";
import { quote } from "../../memory/naming.ts";
import { findOperation, operationNotFound } from "../../memory/operations/run.ts";
import { claimNotFound, findClaim } from "../../memory/regions/claim.ts";
import type { CopyTarget } from "../../memory/regions/copy.ts";
import { findRequestedLease, leaseNotFound } from "../../memory/regions/requested-lease.ts";
import { regionNotFound, sessionNotFound } from "../../memory/state/books.ts";
import type { ClaimedName } from "../../memory/state/claim-index.ts";
import type { Operation as LongWork } from "../../memory/state/operation.ts";
import type { Region } from "../../memory/state/region.ts";
import type { Claim, RequestedLease, Session } from "../../memory/state/session.ts";
import type { Store } from "../../memory/state/store.ts";
import type { Caller } from "./caller.ts";
import { isOwn, may, mayEver, mayUse, type Operation } from "./rights.ts";

const hint =
  "Which role may do what is in docs/access.md. Tokens, with their roles and models, are in the server's TENSORD_TOKENS_FILE.";

/** @throws TensordError `forbidden` if the role may not do it to anything, `unauthorized` if the token is no longer true. */
export function checkRole(caller: Caller, operation: Operation): void {
  if (caller.revoked.aborted) throw unauthorized("the token was taken away, or changed, meanwhile");
  if (mayEver(caller, operation)) return;
  const held = caller.models === null ? "" : ", and is held to some models";
  throw forbidden(`${describeCaller(caller)} may not ${toWords(operation)}: it is a ${caller.role}'s${held}`);
}

/**
 * Whether it is there or not: who may not use it is not told.
 * @param model undefined: all of them together.
 * @throws TensordError `forbidden`.
 */
export function checkModel(caller: Caller, model: string | undefined): void {
  if (caller.models === null || (model !== undefined && mayUse(caller, model))) return;
  const models = [...caller.models].map(quote).join(", ");
  const asked = model === undefined ? "all models at once" : `model ${quote(model)}`;
  throw forbidden(`${describeCaller(caller)} may not use ${asked}, want one of ${models}`);
}

/** @throws TensordError `region-not-found` if the caller may not see it, `forbidden` if it may not do that to it. */
export function checkRegionAccess(caller: Caller, operation: Operation, region: Region): void {
  checkRole(caller, operation);
  if (!mayUse(caller, region.model)) throw regionNotFound(`reg_${region.token}`);
  if (may(caller, operation, region)) return;
  const owner = region.createdBy === null ? "an administrator's" : `${quote(region.createdBy)}'s`;
  throw forbidden(
    `${describeCaller(caller)} may not ${toWords(operation)}: ${describe(region)} is ${owner}, want its own`,
  );
}

/** The region with this id. @throws TensordError as `checkRegionAccess`. */
export function accessRegion(caller: Caller, operation: Operation, store: Store, id: string): Region {
  const region = store.books.region(id);
  checkRegionAccess(caller, operation, region);
  return region;
}

/** The session with this id, which only its own caller sees. @throws TensordError `session-not-found`. */
export function accessSession(caller: Caller, store: Store, id: string): Session {
  const session = store.books.session(id);
  if (isOwn(caller, session)) return session;
  throw sessionNotFound(id);
}

/** The claim with this id, which only its session's caller has. @throws TensordError `claim-not-found`. */
export function accessClaim(caller: Caller, store: Store, named: ClaimedName, id: string): Claim {
  const claim = findClaim(store, named, id);
  checkClaimAccess(caller, store, named, id);
  return claim;
}

/** Refuses another's claim; one that is not there is whoever builds under it to refuse. @throws TensordError `claim-not-found`. */
export function checkClaimAccess(caller: Caller, store: Store, named: ClaimedName, id: string): void {
  const claim = store.claims.of(named);
  if (claim !== undefined && !isOwn(caller, claim.session)) throw claimNotFound(id);
}

/** The lease with this id. @throws TensordError `lease-not-found` if the caller may not see it, `forbidden`. */
export function accessLease(caller: Caller, operation: Operation, store: Store, id: string): RequestedLease {
  const lease = findRequestedLease(store, id);
  if (!mayUse(caller, lease.region.model)) throw leaseNotFound(id);
  if (isOwn(caller, lease)) return lease;
  throw forbidden(`${describeCaller(caller)} may not ${toWords(operation)}: ${quote(id)} is another's, want its own`);
}

/** The folders and prefixes whose files the caller may have loaded: of the server's, or below one of them. */
export function rootsOf(caller: Caller, roots: readonly string[]): readonly string[] {
  return caller.roots === null ? roots : caller.roots.filter((root) => isBelowRoots(root, roots));
}

/** The operation with this id. @throws TensordError `operation-not-found` if the caller may not see it, `forbidden`. */
export function accessOperation(caller: Caller, operation: Operation, store: Store, id: string): LongWork {
  checkRole(caller, operation);
  const work = findOperation(store, id);
  if (!mayUse(caller, work.model)) throw operationNotFound(id);
  if (may(caller, operation, work)) return work;
  throw forbidden(`${describeCaller(caller)} may not ${toWords(operation)}: ${quote(id)} is another's, want its own`);
}

/**
 * Of a new region, whatever it is made of: that the session, the name that it would take over, and the claim are the caller's.
 * @throws TensordError `session-not-found`, `claim-not-found`, `forbidden`.
 */
export function checkCreation(
  caller: Caller,
  store: Store,
  asked: Pick<CopyTarget, "model" | "name" | "version" | "ifExists" | "claim">,
  session: string | undefined,
): void {
  if (session !== undefined) accessSession(caller, store, session);
  const { model, name, version, claim } = asked;
  if (name === null) return;
  if (asked.ifExists === "replace") checkReplacement(caller, store.books.findModel(model)?.names.get(name, version));
  if (claim !== undefined) checkClaimAccess(caller, store, { model, name, version }, claim);
}

/**
 * Of a name that a region would take over: whoever holds it now loses it.
 * @throws TensordError `forbidden` if that is another's.
 */
export function checkReplacement(caller: Caller, holder: Region | undefined): void {
  if (holder !== undefined) checkRegionAccess(caller, "replaceRegion", holder);
}

/** As `checkReplacement`, of the name that `region` takes over when it is sealed. */
export function checkTakeover(caller: Caller, { pendingName, modelBooks, version }: Region): void {
  if (pendingName !== null) checkReplacement(caller, modelBooks.names.get(pendingName, version));
}

export function unauthorized(state: string): TensordError {
  return new TensordError("unauthorized", `Cannot answer: ${state}`, {
    hint: "Set TENSORD_TOKEN or TENSORD_TOKEN_FILE, or pass the token to the client. Whoever runs the server gives it out.",
  });
}

function forbidden(state: string): TensordError {
  return new TensordError("forbidden", `Cannot answer: ${state}`, { hint });
}

function describeCaller({ name }: Caller): string {
  return `token ${quote(name ?? "")}`;
}

/** `changeRegionByName` as people say it. */
function toWords(operation: Operation): string {
  return operation.replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}
