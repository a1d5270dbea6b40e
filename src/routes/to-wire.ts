/** How books become what travels. Pure: one function for each schema of `schemas.ts` that is answered. */

import type { z } from "@hono/zod-openapi";
import type { TensordError } from "../memory/error.ts";
import { roundUpToPage } from "../memory/host/capacity.ts";
import { idOf, type Owner as RegionOwner } from "../memory/journal/region-record.ts";
import type { ClientFacts } from "../memory/journal/session-record.ts";
import { limits } from "../memory/limits.ts";
import { toSessionId } from "../memory/naming.ts";
import { idOfOperation, type Operation } from "../memory/state/operation.ts";
import type { Pool as MemoryPool } from "../memory/state/pool.ts";
import type * as memory from "../memory/state/region.ts";
import { idOfSession, type RequestedLease, type Session } from "../memory/state/session.ts";
import type { ServerPool } from "../memory/state/stats.ts";
import type { Store } from "../memory/state/store.ts";
import type { EventRegion } from "../memory/state/store-event.ts";
import { toProblem } from "./problem.ts";
import type { Model, ModelFacts, Pool } from "./schemas/model.ts";
import type { Operation as OperationSchema } from "./schemas/operation.ts";
import type { ProblemBody } from "./schemas/problem.ts";
import type { ClientDescriptor, Owner, RegionDetail, RegionFacts } from "./schemas/region.ts";
import type { Lease as LeaseSchema, Session as SessionSchema } from "./schemas/session.ts";
import type { ServerPool as ServerPoolSchema } from "./schemas/stats.ts";

/** What a descriptor tells of a region beside its tensors, and all that `toRegionFacts` reads of it. */
export type FactsOfRegion = Pick<
  EventRegion,
  | "token"
  | "model"
  | "name"
  | "version"
  | "pendingName"
  | "state"
  | "revision"
  | "owner"
  | "session"
  | "expiresAt"
  | "evictable"
  | "labels"
  | "storageForm"
  | "format"
  | "identity"
  | "byteSize"
  | "checksum"
  | "createdAt"
  | "createdBy"
  | "sealedAt"
  | "lastUsedAt"
> & { readonly tensors: { readonly count: number } };

/** A descriptor but for its tensors, of which there may be thousands. */
export function toRegionFacts(store: Store, region: FactsOfRegion): z.infer<typeof RegionFacts> {
  const { owner, checksum } = region;
  const { kind, memory, names, isMappable, isPrivate, hugePage, endsWith, device, origin } = store.storages.of(region);
  const { path, shmName } = names.address(region.token);
  return {
    id: idOf(region),
    model: region.model,
    name: region.name,
    version: region.version,
    pending_name: region.pendingName,
    state: region.state,
    revision: region.revision,
    owner: toOwner(owner),
    session: region.session === null ? null : toSessionId(region.session),
    expires_at: toTime(region.expiresAt),
    evictable: region.evictable,
    labels: region.labels,
    storage: {
      kind,
      format: region.format,
      shm_name: shmName,
      path,
      ...region.identity,
      byte_size: region.byteSize,
      page_size: memory.pageSize,
      ends_with: endsWith,
      private: isPrivate,
      href: isMappable ? null : `/v1/regions/${idOf(region)}/data`,
      huge_pages: hugePage,
      device_uuid: device?.uuid ?? null,
      handle_type: device?.handleType ?? null,
      allocation_bytes: memory.isCharged === false ? 0 : roundUpToPage(Math.max(1, region.byteSize), memory.pageSize),
      granularity: device === null ? null : memory.pageSize,
      maker_byte: true,
      immutable: origin === undefined,
      mtime_ns: origin?.mtimeNs(region.token) ?? null,
      changed: origin?.changeOf(region.token) ?? null,
    },
    tensor_count: region.tensors.count,
    checksum:
      checksum === null
        ? null
        : { algorithm: checksum.algorithm, chunk_bytes: checksum.chunkBytes, value: checksum.value },
    created_at: new Date(region.createdAt).toISOString(),
    created_by: region.createdBy,
    sealed_at: toTime(region.sealedAt),
    last_used_at: new Date(region.lastUsedAt).toISOString(),
  };
}

function toOwner(owner: RegionOwner): z.infer<typeof Owner> {
  switch (owner.kind) {
    case "ttl":
      return { kind: "ttl", ttl_ms: owner.ttlMs };
    case "linger":
      return { kind: "linger", linger_ms: owner.lingerMs, handoff_ms: owner.handoffMs };
    case "session":
      return { kind: "session", session: owner.session };
    case "persist":
      return { kind: "persist" };
  }
}

/** As `toRegionFacts`, and what the kernel says of it now. */
export function toRegionDetailFacts(
  store: Store,
  region: memory.Region,
): Omit<z.infer<typeof RegionDetail>, "tensors"> {
  const holders = [...store.holders.of(region)].slice(0, limits.listItems);
  const usage = region.state === "creating" ? undefined : store.storages.of(region).memory.usage(region.token);
  return {
    ...toRegionFacts(store, region),
    in_use: region.serverLeases > 0 || usage?.leased === true,
    lease_barred: usage?.barred === true,
    has_writers: usage?.written === true,
    leases: store.requestedLeases.of(region).size,
    holders: holders.map(([session, { count, writable }]) => ({
      session: idOfSession(session),
      client: session.client === null ? null : toClient(session.client),
      mappings: count,
      writable,
    })),
    // The kernel says whether somebody maps it, and never who.
    unknown_holders: (usage?.consumed === true || usage?.made === true) && holders.length === 0,
    ...(region.state === "draining" ? { drain: { reason: region.reason, waits_for: region.waitsFor } } : {}),
  };
}

/** @param workers how many there are. */
export function toModel(model: memory.Model, workers: number): z.infer<typeof Model> {
  return { ...toModelFacts(model), workers };
}

export function toModelFacts(model: memory.Model): z.infer<typeof ModelFacts> {
  return {
    name: model.name,
    pools: [...model.pools.all].map(toPool),
    regions: model.regions.size,
    revision: model.revision,
    created_at: new Date(model.createdAt).toISOString(),
  };
}

export function toServerPool({
  availableBytes,
  reserveBytes,
  unaccountedBytes,
  ...pool
}: ServerPool): z.infer<typeof ServerPoolSchema> {
  const beside = { available_bytes: availableBytes, reserve_bytes: reserveBytes, unaccounted_bytes: unaccountedBytes };
  return { ...toPool(pool), ...beside };
}

/** A limit and its sums. */
function toPool({
  name,
  limitBytes,
  usedBytes,
  drainingBytes,
}: Pick<MemoryPool, "name" | "limitBytes" | "usedBytes" | "drainingBytes">): z.infer<typeof Pool> {
  return { pool: name, limit_bytes: limitBytes, used_bytes: usedBytes, draining_bytes: drainingBytes };
}

export function toSession(session: Session): z.infer<typeof SessionSchema> {
  return {
    id: idOfSession(session),
    name: session.name,
    client: session.client === null ? null : toClient(session.client),
    quota_bytes: session.quotaBytes,
    used_bytes: session.usedBytes,
    regions: session.regions.size,
    ttl_ms: session.ttlMs,
    held: session.holds > 0,
    expires_at: toTime(session.expiresAt),
    created_at: new Date(session.createdAt).toISOString(),
    created_by: session.createdBy,
  };
}

export function toClient(client: ClientFacts): z.infer<typeof ClientDescriptor> {
  const { name, pid, pidNamespace = null, namespacePid = null, hostname, version, labels } = client;
  const inNamespace = { pid_namespace: pidNamespace, namespace_pid: namespacePid };
  return { name, pid, ...inNamespace, hostname, version, labels: { ...labels } };
}

export function toLease(lease: RequestedLease): z.infer<typeof LeaseSchema> {
  return {
    id: `lea_${lease.token}`,
    region: idOf(lease.region),
    session: lease.session === null ? null : idOfSession(lease.session),
    ttl_ms: lease.ttlMs,
    expires_at: new Date(lease.expiresAt).toISOString(),
  };
}

export function toOperation(operation: Operation): z.infer<typeof OperationSchema> {
  const { failure } = operation;
  return {
    id: idOfOperation(operation),
    kind: operation.kind,
    state: operation.state,
    model: operation.model,
    created_by: operation.createdBy,
    key: operation.requestKey,
    source: operation.source,
    done_bytes: operation.doneBytes,
    total_bytes: operation.totalBytes,
    mode: operation.choice?.mode ?? null,
    reason: operation.choice?.reason ?? null,
    region: operation.result,
    problem: failure === null ? null : toWorkProblem(failure),
    started_at: new Date(operation.startedAt).toISOString(),
    ended_at: toTime(operation.endedAt),
  };
}

/** Of who asked no request is left that would say who may see whose sessions use what ran out. */
function toWorkProblem(failure: TensordError): ProblemBody {
  const { holders: _, ...problem } = toProblem(failure, undefined, () => {});
  return problem;
}

function toTime(ms: number | null): string | null {
  return ms === null ? null : new Date(ms).toISOString();
}
