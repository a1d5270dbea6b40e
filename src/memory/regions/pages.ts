/** A region's pages as the kernel keeps them: how many are in memory, advice on them, and what was written to them brought to a disk. */

import type { PageAdvice } from "../os/libc-files.ts";
import { nextState } from "../state/lifecycle.ts";
import type { Region } from "../state/region.ts";
import type { Store } from "../state/store.ts";

/** How many of a region's bytes are in memory; null where the kernel does not tell the server. */
export interface Residency {
  readonly before: number | null;
  readonly after: number | null;
}

/**
 * Advises the kernel on all of the region's bytes. What a process maps stays in memory, and so do pages that are their bytes' only copy.
 * @throws TensordError `region-busy`, `region-draining`, `storage-unavailable` of memory of a device, `io-error`.
 */
export async function adviseRegion(store: Store, region: Region, advice: PageAdvice): Promise<Residency> {
  nextState(region, "read");
  const { bytes } = store.storages.of(region);
  const { token, byteSize } = region;
  const before = await bytes.resident(token, byteSize);
  await bytes.advise(token, byteSize, advice);
  return { before, after: await bytes.resident(token, byteSize) };
}

/**
 * Brings what was written to the region to where its file is kept.
 * @returns whether it is there without power: of memory nothing is.
 * @throws TensordError as `adviseRegion`.
 */
export async function flushRegion(store: Store, region: Region): Promise<boolean> {
  nextState(region, "read");
  return await store.storages.of(region).bytes.flush(region.token);
}
