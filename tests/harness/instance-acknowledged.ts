/**
 * Regions that a server has acknowledged, each with what a crash must not change: descriptor, file and lease. Among them
 * every state that outlives a request.
 */

import { expect } from "bun:test";
import { type Content, exists, readContent, writeContent } from "./instance-content.ts";
import type { TestServer } from "./server.ts";
import type { NewRegion, RegionDetail } from "./server-api.ts";
import type { WorkerProcess } from "./worker.ts";

interface Acknowledged {
  readonly region: RegionDetail;
  /** Null for a draining region: its name is gone, only its worker sees it. */
  readonly content: Content | null;
}

const hour = 3_600_000;

export class AcknowledgedRegions {
  readonly #regions: readonly Acknowledged[];
  readonly #worker: WorkerProcess;
  readonly #digests: ReadonlyMap<string, string>;

  private constructor(regions: Acknowledged[], worker: WorkerProcess, digests: Map<string, string>) {
    this.#regions = regions;
    this.#worker = worker;
    this.#digests = digests;
  }

  /**
   * Makes them, with known content. `worker` maps some of them, and keeps its mappings until `release`.
   * @param withDraining also one that is deleted and drains for as long: a server tries to free it again and again.
   */
  static async make({ api }: TestServer, worker: WorkerProcess, withDraining: boolean): Promise<AcknowledgedRegions> {
    await api.call("POST", "/v1/models", { name: "other", memory_limit_bytes: 2 ** 26 });
    const make = async (request: NewRegion, seed: number) => {
      const region = await api.create(request);
      writeContent(region, seed);
      return region;
    };
    const open = await make({ name: "open", byte_size: 70_001, persist: true, labels: { a: "1" } }, 1);
    const nameless = await make({ byte_size: 10, ttl_ms: hour }, 2);
    const sealed = await make({ name: "sealed", model: "other", byte_size: 3_000_000, ttl_ms: hour }, 3);
    const stock = await make({ name: "stock", byte_size: 50_000, persist: true }, 4);
    const draining = withDraining ? [await make({ name: "draining", byte_size: 60_000, persist: true }, 5)] : [];
    const pending = await make({ name: "open", byte_size: 5000, persist: true, if_exists: "replace" }, 6);
    await api.seal(sealed.id, { checksum: true });
    await api.seal(stock.id, { stock_writable: true, checksum: true });
    await worker.attach("open", open, "write");
    await worker.attach("sealed", sealed);
    for (const region of draining) {
      await worker.attach("draining", region);
      expect((await api.delete(region.id)).state).toBe("draining");
    }
    await api.call("PATCH", `/v1/regions/${nameless.id}`, { labels: { b: "2" } });
    const all = [open, nameless, sealed, stock, pending, ...draining];
    const details = await Promise.all(all.map(({ id }) => api.get(id)));
    const regions = details.map((region) => ({
      region,
      content: region.state === "draining" ? null : readContent(region.storage.path),
    }));
    const digests = new Map<string, string>();
    for (const key of ["open", "sealed", ...draining.map(() => "draining")]) digests.set(key, await worker.digest(key));
    return new AcknowledgedRegions(regions, worker, digests);
  }

  get ids(): string[] {
    return this.#regions.map(({ region }) => region.id);
  }

  /** Asserts that each is there as it was acknowledged, and that its worker never noticed. */
  async check({ api }: TestServer): Promise<void> {
    for (const { region, content } of this.#regions) {
      const now = await api.get(region.id);
      expect(toLasting(now), `${region.name ?? region.id} is as it was acknowledged`).toEqual(toLasting(region));
      if (content === null) expect(exists(region.storage.path)).toBeFalse();
      else expect(readContent(region.storage.path), `${region.name ?? region.id} has its bytes`).toEqual(content);
      if (region.checksum !== null) expect((await api.verify(region.id)).ok).toBeTrue();
    }
    for (const [key, digest] of this.#digests) {
      expect(await this.#worker.digest(key), `the mapping of ${key} is unharmed`).toBe(digest);
    }
  }

  /** Unmaps everything; what drained is freed by that. */
  async release({ api }: TestServer): Promise<void> {
    for (const key of this.#digests.keys()) await this.#worker.detach(key);
    for (const { region, content } of this.#regions) if (content === null) await api.untilGone(region.id);
  }
}

/** A descriptor without what a restart may change: when somebody last asked for it. */
function toLasting(region: RegionDetail) {
  const { last_used_at: _, ...lasting } = region;
  return lasting;
}
