/** What a request to an elastic pool is refused with, and what its numbers are in pages. Pure. */

import { type FailureFacts, TensordError } from "../../memory/error.ts";
import { limits } from "../../memory/limits.ts";
import { quote } from "../../memory/naming.ts";
import { type ElasticPool, idOfPool, type PoolRange, type PoolRequest } from "../../memory/state/elastic.ts";
import { poolNotFound } from "../../memory/state/no-elastic.ts";
import type { PoolMember } from "./pool-books.ts";

/**
 * A range in pages.
 * @param what is done with it.
 * @throws TensordError `out-of-range` if it is no whole pages, or not within the pool.
 */
export function toPages(
  pool: ElasticPool,
  { byteOffset, byteSize }: PoolRange,
  what: string,
): { index: number; count: number } {
  const { pageSize, virtualCapacity } = pool;
  const isWhole = (bytes: number) => Number.isSafeInteger(bytes) && bytes >= 0 && bytes % pageSize === 0;
  const asked = `Cannot ${what} ${byteSize} bytes at ${byteOffset}`;
  if (!isWhole(byteOffset) || !isWhole(byteSize) || byteSize === 0) {
    throw outOfRange(pool, `${asked}: a page has ${pageSize} bytes, want whole pages, and at least one`, {
      page_size: pageSize,
    });
  }
  if (byteOffset + byteSize > virtualCapacity) {
    throw outOfRange(pool, `${asked}: the range has ${virtualCapacity} bytes`, { virtual_capacity: virtualCapacity });
  }
  return { index: byteOffset / pageSize, count: byteSize / pageSize };
}

export function outOfRange(
  pool: ElasticPool,
  detail: string,
  facts: FailureFacts,
  hint = "Ask for whole pages within the pool's virtual capacity.",
): TensordError {
  return new TensordError("out-of-range", detail, { pool: idOfPool(pool), ...facts, hint });
}

export function notMapped(pool: ElasticPool, { byteOffset, byteSize }: PoolRange, index: number): TensordError {
  const at = index * pool.pageSize;
  return new TensordError(
    "not-mapped",
    `Cannot unmap ${byteSize} bytes at ${byteOffset}: no page lies at ${at}, or it leaves already`,
    { pool: idOfPool(pool), byte_offset: at, hint: "Unmap what is mapped: `runs` of the pool lists it." },
  );
}

export function poolIsGone({ model, deviceUuid }: ElasticPool): TensordError {
  return poolNotFound(model.name, deviceUuid);
}

export function inUse(pool: ElasticPool, what: string, workers: readonly PoolMember[]): TensordError {
  const named = workers.slice(0, limits.holdersNamed).map(({ name }) => name);
  return new TensordError(
    "in-use",
    `Cannot ${what} elastic pool ${idOfPool(pool)}: ${workers.length} workers are in the way (${named.join(", ")})`,
    {
      pool: idOfPool(pool),
      workers: named,
      hint: "Have them leave the pool, or end; the pool's `workers` lists them.",
    },
  );
}

export function pagesOnTheirWay(pool: ElasticPool, state: "made" | "leaving"): TensordError {
  const what = state === "made" ? "pages are being made" : "pages are leaving";
  return new TensordError("in-use", `Cannot compact elastic pool ${idOfPool(pool)}: ${what}`, {
    pool: idOfPool(pool),
    hint: "Ask again when they are: the pool's `leaving` lists what others have still.",
  });
}

/** @throws TensordError `invalid-page-size`, `out-of-range`. */
export function checkSizes(
  { virtualCapacity, pageSize, minimumBytes, maximumBytes }: PoolRequest,
  granularity: number,
): void {
  const isPower = Number.isSafeInteger(pageSize) && pageSize > 0 && Number.isInteger(Math.log2(pageSize));
  if (!isPower || pageSize < granularity || pageSize > limits.elasticPageBytesMax) {
    throw new TensordError(
      "invalid-page-size",
      `Cannot make pages of ${pageSize} bytes: want a power of two from ${granularity} to ${limits.elasticPageBytesMax}`,
      {
        page_size: pageSize,
        granularity,
        maximum_page_size: limits.elasticPageBytesMax,
        hint: `Leave \`page_size\` out for ${limits.elasticPageBytesDefault}, which suits most.`,
      },
    );
  }
  const pages = virtualCapacity / pageSize;
  if (!Number.isSafeInteger(pages) || pages < 1 || pages > limits.elasticPages) {
    throw new TensordError(
      "out-of-range",
      `Cannot make a pool of ${virtualCapacity} bytes: want whole pages of ${pageSize}, from 1 to ${limits.elasticPages}`,
      {
        virtual_capacity: virtualCapacity,
        page_size: pageSize,
        maximum_pages: limits.elasticPages,
        hint: "Make `virtual_capacity` a multiple of `page_size`; larger pages make a larger pool.",
      },
    );
  }
  checkBounds(virtualCapacity, minimumBytes, maximumBytes);
}

/** @throws TensordError `out-of-range`. */
export function checkBounds(virtualCapacity: number, minimumBytes: number, maximumBytes: number | null): void {
  const most = maximumBytes ?? virtualCapacity;
  if (minimumBytes <= most && minimumBytes <= virtualCapacity) return;
  throw new TensordError(
    "out-of-range",
    `Cannot keep ${minimumBytes} bytes for a pool: want at most its ${Math.min(most, virtualCapacity)}`,
    {
      minimum_bytes: minimumBytes,
      maximum_bytes: maximumBytes,
      virtual_capacity: virtualCapacity,
      hint: "Lower `minimum_bytes`, or raise `maximum_bytes`.",
    },
  );
}

export function poolExists(pool: ElasticPool, asked: PoolRequest): TensordError {
  const is = toNumbers(pool);
  const wants = toNumbers(asked);
  return new TensordError(
    "vmm-pool-exists",
    `Cannot make an elastic pool for model ${quote(asked.model)} on device ${quote(asked.deviceUuid)}: it has one with other values`,
    {
      pool: idOfPool(pool),
      existing: is,
      requested: wants,
      hint: "Use it as it is, change its limits, or delete it first.",
    },
  );
}

type Numbers = Pick<ElasticPool, "virtualCapacity" | "pageSize" | "minimumBytes" | "maximumBytes">;

function toNumbers({ virtualCapacity, pageSize, minimumBytes, maximumBytes }: Numbers) {
  return {
    virtual_capacity: virtualCapacity,
    page_size: pageSize,
    minimum_bytes: minimumBytes,
    maximum_bytes: maximumBytes,
  };
}

export function isAsAsked(pool: ElasticPool, asked: PoolRequest): boolean {
  return Bun.deepEquals(toNumbers(pool), toNumbers(asked));
}
