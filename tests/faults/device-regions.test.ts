/**
 * Regions on a device, through a real server on the stand-in driver: what is asked of the driver and in which order, what comes back, and that nothing
 * is left of what failed. It shows nothing about a GPU.
 */

import { afterAll, expect } from "bun:test";
import { fstatSync, readlinkSync } from "node:fs";
import { CudaStandIn, needsStandIn, standInUuid } from "../harness/cuda-stand-in.ts";
import { connect, holderOf, lookAtHolder } from "../harness/device-server.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { testWith } from "../harness/instance-needs.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import { until } from "../harness/server-wait.ts";

afterAll(assertNothingLeft);

const MiB = 2 ** 20;
const device = standInUuid(0);
const onDevice = { storage: "cuda_vmm", device_uuid: device } as const;

const create = (server: TestServer, name: string, byteSize = 3 * MiB, more: object = {}) =>
  server.api.create({ name, ...onDevice, byte_size: byteSize, persist: true, ...more } as never);

/** What the books say is taken of the device. */
async function chargedOf(server: TestServer, pool = device): Promise<number | undefined> {
  const { pools } = await server.api.stats();
  const found = pools.find((each) => each.pool === pool);
  return found && found.used_bytes + found.draining_bytes;
}

const testOnStandIn = testWith(needsStandIn);

testOnStandIn(
  "a region on a device is one allocation, charged in whole pages, handed out by descriptors and freed",
  async () => {
    await using cuda = new CudaStandIn({ devices: [{}, {}] });
    await using server = await startServer({ env: cuda.env });
    const region = await create(server, "weights");
    expect(region.storage).toMatchObject({
      kind: "cuda_vmm",
      device_uuid: device,
      handle_type: "posix_fd",
      allocation_bytes: 4 * MiB,
      granularity: 2 * MiB,
      path: null,
      format: "raw",
      byte_size: 3 * MiB,
    });
    expect(await chargedOf(server)).toBe(4 * MiB);
    expect((await server.command("status")).stdout).toContain(`4 MiB used of 256 MiB on ${device}`);
    expect(cuda.inUse()).toMatchObject([{ kind: "memory", card: 0, bytes: 4 * MiB }]);
    using client = await connect(server);
    const attached = await client.attach(region.id, { access: "rw", count: 2 });
    expect(attached.reply.fds).toEqual(["region", "region", "handle"]);
    const [lease, , handle] = attached.descriptors as [number, number, number];
    expect(fstatSync(lease, { bigint: true }).ino.toString()).toBe(region.storage.ino);
    expect(readlinkSync(`/proc/self/fd/${handle}`)).toContain("card0/memory-");
    expect(await server.api.get(region.id)).toMatchObject({ in_use: true, has_writers: true });
    expect((await server.api.delete(region.id)).state).toBe("draining");
    expect(cuda.inUse()).toHaveLength(1);
    client.letGo(attached.descriptors);
    await server.api.untilGone(region.id);
    await until("the memory is free", () => cuda.inUse().length === 0);
    expect(await chargedOf(server)).toBe(0);
    expect(cuda.calls("cuDevicePrimaryCtxRetain")).toEqual([]);
  },
);

testOnStandIn(
  "regions on a device are back after a crash, leased by whom they were, and nothing is imported for it",
  async () => {
    await using cuda = new CudaStandIn({ devices: [{}, {}] });
    await using server = await startServer({ env: cuda.env });
    const open = await create(server, "open");
    const sealed = await create(server, "sealed", 1000);
    const draining = await create(server, "draining");
    const idle = await create(server, "idle");
    await server.api.seal(sealed.id);
    using worker = await connect(server);
    const writer = await worker.attach(open.id, { access: "rw" });
    const reader = await worker.attach(draining.id);
    await server.api.delete(draining.id);
    const before = await Promise.all([open, sealed].map(({ id }) => server.api.descriptor(id)));

    await server.crash();
    expect(await Promise.all([open, sealed].map(({ id }) => server.api.descriptor(id)))).toEqual(
      before.map((region) => ({ ...region, last_used_at: expect.any(String) })) as never,
    );
    expect(await server.api.get(open.id)).toMatchObject({ state: "open", in_use: true, has_writers: true });
    expect(await server.api.get(draining.id)).toMatchObject({ state: "draining", in_use: true });
    expect(await chargedOf(server)).toBe(14 * MiB);
    worker.letGo([...reader.descriptors, ...writer.descriptors]);
    await server.api.untilGone(draining.id);
    using other = await connect(server);
    const handed = await other.attach(open.id, { access: "rw" });
    const again = await other.attach(sealed.id);
    expect(handed.reply.fds).toEqual(["region", "handle"]);
    expect(readlinkSync(`/proc/self/fd/${again.descriptors[1]}`)).toContain("card0/memory-");
    const problem = await other.problem("attach", { region: sealed.id, access: "rw" });
    expect(problem.code).toBe("region-sealed");
    other.letGo([...handed.descriptors, ...again.descriptors]);
    await server.api.delete(idle.id);
    await until("its memory is free", () => cuda.inUse().length === 2);
    await create(server, "new");
    expect(cuda.inUse()).toHaveLength(3);
    await server.crash();
    expect(cuda.inUse()).toHaveLength(3);
    expect(cuda.calls("cuMemImportFromShareableHandle")).toEqual([]);
  },
);

testOnStandIn(
  "a region on a device goes with the server and the fd holder: what is gone is told to be lost",
  async () => {
    await using cuda = new CudaStandIn();
    await using server = await startServer({ env: cuda.env });
    const region = await create(server, "weights");
    const holder = await holderOf(server);
    await server.kill("SIGKILL");
    process.kill(holder, "SIGKILL");
    await until("the device is free", () => cuda.inUse().length === 0);
    server.log.expect(/^tensord\.region\.lost$/);
    await server.start();
    await expect(server.api.get(region.id)).rejects.toThrow("region-not-found");
    expect(await chargedOf(server)).toBe(0);
  },
);

testOnStandIn("an fd holder that dies beside its server is given all of it again", async () => {
  await using cuda = new CudaStandIn();
  await using server = await startServer({ env: cuda.env });
  const regions = [await create(server, "first"), await create(server, "second")];
  const holder = await holderOf(server);
  server.log.expect(/^The fd holder, process \d+, ended; a new one is started for 4 descriptors$/);
  process.kill(holder, "SIGKILL");
  await until("a new one has all", async () => {
    const finding = await lookAtHolder(server);
    return finding.includes("keeps 4 descriptors") && !finding.includes(`pid ${holder}`);
  });
  await server.crash();
  for (const { id } of regions) expect(await server.api.get(id)).toMatchObject({ state: "open" });
  expect(cuda.inUse()).toHaveLength(2);
});

testOnStandIn(
  "without a device the kind of storage is refused with the reason, and nothing else is disturbed",
  async () => {
    await using server = await startServer();
    const refusal = await server.api
      .call("POST", "/v1/regions", { storage: "cuda_vmm", byte_size: 1, ttl_ms: 1000 })
      .then(
        () => undefined,
        (error: Error) => error,
      );
    expect(refusal?.message).toContain("libcuda.so.1");
    const { storages } = await server.api.call<{
      storages: { kind: string; available: boolean; reason: string | null }[];
    }>("GET", "/v1/capabilities");
    expect(storages.find(({ kind }) => kind === "cuda_vmm")).toMatchObject({
      available: false,
      reason: expect.stringContaining("libcuda.so.1"),
    });
  },
);

testOnStandIn("a driver without a device is no reason to warn, and is told to who asks", async () => {
  await using cuda = new CudaStandIn({ devices: [] });
  await using server = await startServer({ env: cuda.env });
  const { storages } = await server.api.call<{ storages: { kind: string; reason: string | null }[] }>(
    "GET",
    "/v1/capabilities",
  );
  expect(storages.find(({ kind }) => kind === "cuda_vmm")?.reason).toContain("CUDA_ERROR_NO_DEVICE");
});
