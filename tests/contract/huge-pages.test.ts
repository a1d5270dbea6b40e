/** Regions of huge pages over HTTP, where the host's administrator has reserved some: they are like any other. */

import { expect } from "bun:test";
import { readHugeSpace } from "../../src/memory/host/memory-space.ts";
import { limits, MiB } from "../../src/memory/limits.ts";
import { hugePageBytes } from "../../src/memory/storage/storage.ts";
import { hostOf } from "../../src/server/cli/pools.ts";
import { until, withApp } from "../harness/app.ts";
import { testWith } from "../harness/instance-needs.ts";
import { memfdPath } from "../harness/memfd.ts";
import { readBytes, writeBytes } from "./support/data-requests.ts";
import { mapForWriting } from "./support/mapping.ts";

const pageBytes = hugePageBytes["2MiB"];
const needsHugePages =
  readHugeSpace(pageBytes).freeBytes >= 16 * MiB ? undefined : "needs 8 reserved huge pages of 2 MiB (vm.nr_hugepages)";

testWith(needsHugePages)(
  "a region of huge pages is charged in whole ones, written in parts and whole, sealed by the kernel, and downloaded",
  withApp(async (app) => {
    const { freeBytes } = readHugeSpace(pageBytes);
    const count = limits.downloadCopyBytes + 3 * MiB;
    const region = await app.create({ storage: "memfd", huge_pages: "2MiB", name: "huge", byte_size: count });
    const { storage } = region;
    expect(storage).toMatchObject({ kind: "memfd", huge_pages: "2MiB", page_size: pageBytes, private: true });
    const charge = Math.ceil(storage.byte_size / pageBytes) * pageBytes;
    expect(hostOf(await app.stats()).used_bytes).toBe(charge);
    expect(readHugeSpace(pageBytes).freeBytes).toBe(freeBytes - charge);
    const data = Buffer.from(Uint8Array.from({ length: count }, (_, index) => index % 251));
    expect(await writeBytes(app, region.id, data)).toMatchObject({ status: 200 });
    const measured = { headers: { "content-length": String(count) } };
    expect(await writeBytes(app, region.id, data, measured)).toMatchObject({ status: 200 });
    const part = { headers: { "content-length": "9", "content-range": `bytes 100-108/${count}` } };
    expect(await writeBytes(app, region.id, Buffer.from("some more"), part)).toMatchObject({ status: 200 });
    data.write("some more", 100);
    {
      using _ = mapForWriting(memfdPath(region), pageBytes);
      await app.refused("region-has-writers", "POST", `/v1/regions/${region.id}/seal`);
    }
    await app.seal(region.id, { checksum: true });
    expect(await app.verify(region.id)).toMatchObject({ ok: true });
    expect((await readBytes(app, region.id)).bytes.equals(data)).toBeTrue();
    await until("the download has ended", async () => !(await app.get(region.id)).in_use);
    expect(await app.remove(region.id)).toMatchObject({ state: "deleted" });
    await until("the pages are back", () => readHugeSpace(pageBytes).freeBytes === freeBytes);
  }),
);
