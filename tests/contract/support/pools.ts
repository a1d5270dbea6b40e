/** Elastic pools by request, on a device that is made up. */

import { reopenPools } from "../../../src/cuda/elastic/reopen.ts";
import { MiB } from "../../../src/memory/limits.ts";
import type { StoreOptions } from "../../../src/memory/start/open-store.ts";
import type { ElasticPoolDetail, MappedPages } from "../../../src/server/cli/answers.ts";
import { createDeviceStorage, fakeDevice } from "../../conformance/support/fake-device.ts";
import type { AppOptions, TestApp } from "../../harness/app.ts";

type Storages = NonNullable<StoreOptions["storages"]>;

/** A device, on which pools can be made. */
export const withPools = {
  storages: ({ memfds }: Parameters<Storages>[0]) => ({
    storages: [createDeviceStorage(memfds)],
    openElastic: (store, rows) => reopenPools(store, memfds, rows),
  }),
} satisfies AppOptions;

/** Of one page. */
export const pagesBytes = 2 * MiB;
/** Of a range. */
export const poolSize = 16 * pagesBytes;

export function poolPath(model = "default"): string {
  return `/v1/models/${model}/vmm/${fakeDevice.uuid}`;
}

export async function makePool(app: TestApp, more: object = {}, model?: string): Promise<ElasticPoolDetail> {
  const asked = { virtual_capacity: poolSize, page_size: pagesBytes, ...more };
  return await app.ok<ElasticPoolDetail>(201, "PUT", poolPath(model), asked);
}

export async function mapAt(app: TestApp, byteOffset: number, byteSize: number): Promise<MappedPages> {
  const asked = { byte_offset: byteOffset, byte_size: byteSize };
  return await app.ok<MappedPages>(200, "POST", `${poolPath()}/map`, asked);
}
