/** What a request says of a region becomes what the operations take; what a schema cannot say is refused here. */

import type { z } from "@hono/zod-openapi";
import { TensordError } from "../memory/error.ts";
import type { Owner } from "../memory/journal/region-record.ts";
import { toSpec } from "../memory/layout/asked-text.ts";
import { limits } from "../memory/limits.ts";
import type { SessionId } from "../memory/naming.ts";
import type { CopyTarget } from "../memory/regions/copy.ts";
import type { CreateRequest } from "../memory/regions/create.ts";
import type { Store } from "../memory/state/store.ts";
import type * as requests from "./schemas/requests.ts";

/** @param many the tensors, if they are too many to stand in the request. */
export function toCreateRequest(
  store: Store,
  request: z.infer<typeof requests.CreateRegion>,
  many?: SharedArrayBuffer,
): Omit<CreateRequest, "createdBy"> {
  const target = toCopyTarget(store, request);
  return { ...target, tensors: toTensors(many ?? request.tensors?.map(toSpec), request.byte_size) };
}

/** What a new region is to be, but for what is in it. */
export function toCopyTarget(
  store: Store,
  request: Omit<z.infer<typeof requests.CreateRegion>, "tensors" | "byte_size">,
): Omit<CopyTarget, "createdBy"> {
  const { model = "default", name = null, version = "", if_exists: ifExists = "fail", labels = {} } = request;
  const wish = {
    kind: request.storage,
    isPrivate: request.private ?? false,
    hugePage: request.huge_pages,
    device: request.device_uuid,
  };
  const { form } = store.storages.choose(wish);
  const isStorageSaid =
    request.storage !== undefined ||
    request.private !== undefined ||
    request.huge_pages !== undefined ||
    request.device_uuid !== undefined;
  if (name === null && ifExists !== "fail") {
    throw refused(`Cannot apply "if_exists": "${ifExists}": the region has no name, want one`);
  }
  if (name === null && version !== "") throw refused("Cannot make a version: the region has no name, want one");
  const owner = toOwner(request);
  if (owner.kind === "persist" && name === null) {
    throw refused("Cannot let the region persist: it has no name, want one, or nobody could find it again");
  }
  // Beside a linger it is who builds the region, and ends it until it is sealed.
  const session = request.session === undefined ? null : store.books.session(request.session);
  const {
    claim,
    evictable = false,
    on_full: onFull = "fail",
    deadline_ms: deadlineMs = limits.deadlineDefaultMs,
  } = request;
  return {
    model,
    name,
    version,
    storage: form,
    isStorageSaid,
    owner,
    ifExists,
    labels,
    session,
    claim,
    evictable,
    onFull,
    deadlineMs,
  };
}

function toTensors(
  tensors: CreateRequest["tensors"] | undefined,
  byteSize: number | undefined,
): CreateRequest["tensors"] {
  if (tensors !== undefined && byteSize === undefined) return tensors;
  if (tensors === undefined && byteSize !== undefined) return [{ name: "data", dtype: "U8", shape: [byteSize] }];
  const state =
    tensors === undefined ? 'neither "tensors" nor "byte_size" is there' : 'both "tensors" and "byte_size" are there';
  throw refused(`Cannot size the region: ${state}, want one of them`);
}

interface OwnerRequest {
  readonly ttl_ms?: number | undefined;
  readonly linger_ms?: number | undefined;
  readonly handoff_ms?: number | undefined;
  readonly session?: string | undefined;
  readonly persist?: boolean | undefined;
}

export function toOwner({ ttl_ms, linger_ms, handoff_ms, session, persist }: OwnerRequest): Owner {
  const isBySession = session !== undefined;
  const isByTtl = ttl_ms !== undefined;
  const isByLinger = linger_ms !== undefined;
  const isByRequest = persist === true;
  const count = Number(isBySession) + Number(isByTtl) + Number(isByLinger) + Number(isByRequest);
  // What lingers may say who builds it.
  if (count > 1 && !(count === 2 && isBySession && isByLinger)) {
    const said = { session: isBySession, ttl_ms: isByTtl, linger_ms: isByLinger, persist: isByRequest };
    const names = Object.entries(said).flatMap(([name, isSaid]) => (isSaid ? [`"${name}"`] : []));
    throw refused(`Cannot choose the owner: ${names.join(" and ")} are there, want one of them`);
  }
  if (handoff_ms !== undefined && linger_ms === undefined) {
    throw refused('Cannot let a hand-off wait: "handoff_ms" is there without "linger_ms", want both');
  }
  if (ttl_ms !== undefined) return { kind: "ttl", ttlMs: ttl_ms };
  if (linger_ms !== undefined) {
    return { kind: "linger", lingerMs: linger_ms, handoffMs: handoff_ms ?? limits.handoffDefaultMs };
  }
  if (session !== undefined) return { kind: "session", session: session as SessionId };
  if (persist === true) return { kind: "persist" };
  throw new TensordError("owner-required", "Cannot allocate the region: it has no owner, and so nothing would end it", {
    hint: 'Say "session": "ses_…" to end it with the worker, "linger_ms" to end it when nobody uses it, "ttl_ms": 600000 for ten minutes, or "persist": true together with a name.',
  });
}

export function parseLabel(label: string | undefined): readonly [string, string] | undefined {
  if (label === undefined) return undefined;
  const at = label.indexOf("=");
  if (at > 0) return [label.slice(0, at), label.slice(at + 1)];
  throw refused(`Cannot filter by label: ${JSON.stringify(label.slice(0, 80))} has no "=", want key=value`);
}

function refused(detail: string): TensordError {
  return new TensordError("validation-failed", detail, { hint: "See the operation's description in /openapi.json." });
}
