/** How books become what travels. Pure: one function for each schema of `schemas.ts` that is answered. */

import type { z } from "@hono/zod-openapi";
import type * as memory from "../memory/region.ts";
import { idOf } from "../memory/region.ts";
import type { EventRegion, Store } from "../memory/store.ts";
import type { Model, Region, RegionDetail } from "./schemas.ts";

export function toRegion(store: Store, region: memory.Region): z.infer<typeof Region> {
  return { ...toRegionFacts(store, region), tensors: region.tensors.map(toTensor) };
}

/** A descriptor but for its tensors, of which there may be thousands. */
export function toRegionFacts(store: Store, region: EventRegion): Omit<z.infer<typeof Region>, "tensors"> {
  const { owner, checksum } = region;
  return {
    id: idOf(region),
    model: region.model,
    name: region.name,
    pending_name: region.pendingName,
    state: region.state,
    revision: region.revision,
    owner: owner.kind === "ttl" ? { kind: "ttl", ttl_ms: owner.ttlMs } : { kind: "persist" },
    expires_at: toTime(region.expiresAt),
    evictable: false,
    labels: region.labels,
    storage: {
      kind: region.storageKind,
      format: "safetensors",
      shm_name: store.addresses.shmName(region.token),
      path: store.addresses.path(region.token),
      ...region.identity,
      byte_size: region.byteSize,
      page_size: store.storage.pageSize,
    },
    checksum:
      checksum === null
        ? null
        : { algorithm: checksum.algorithm, chunk_bytes: checksum.chunkBytes, value: checksum.value },
    created_at: new Date(region.createdAt).toISOString(),
    sealed_at: toTime(region.sealedAt),
    last_used_at: new Date(region.lastUsedAt).toISOString(),
  };
}

function toTensor({ name, dtype, shape, byteOffset, byteSize, aligned }: memory.Region["tensors"][number]) {
  return { name, dtype, shape: [...shape], byte_offset: byteOffset, byte_size: byteSize, aligned };
}

/** Asks the kernel who maps the region, which a list must not. */
export function toRegionDetail(store: Store, region: memory.Region): z.infer<typeof RegionDetail> {
  const usage = region.state === "creating" ? undefined : store.storage.usage(region.token);
  return {
    ...toRegion(store, region),
    in_use: region.serverLeases > 0 || usage?.leased === true,
    has_writers: usage?.written === true,
    ...(region.state === "draining" ? { drain: { reason: region.reason, waits_for: region.waitsFor } } : {}),
  };
}

export function toModel(model: memory.Model): z.infer<typeof Model> {
  return {
    name: model.name,
    memory_limit_bytes: model.memoryLimitBytes,
    used_bytes: model.usedBytes,
    draining_bytes: model.drainingBytes,
    regions: model.regions.size,
    revision: model.revision,
    created_at: new Date(model.createdAt).toISOString(),
  };
}

function toTime(ms: number | null): string | null {
  return ms === null ? null : new Date(ms).toISOString();
}
