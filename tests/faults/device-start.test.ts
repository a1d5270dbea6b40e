/**
 * A server beside drivers that take their time, hang, or show devices that cannot be used: it serves at once, and says what is so. On the stand-in
 * driver: it shows how the driver is called, and nothing about a GPU.
 */

import { afterAll, expect } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Diagnosis } from "../../src/memory/doctor/finding.ts";
import { CudaStandIn, needsStandIn, standInUuid } from "../harness/cuda-stand-in.ts";
import { connect } from "../harness/device-server.ts";
import { assertNothingLeft, createInstance } from "../harness/instance.ts";
import { testWith } from "../harness/instance-needs.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import type { Region } from "../harness/server-api.ts";
import { runTensord } from "../harness/server-command.ts";
import { until } from "../harness/server-wait.ts";
import { information, versions } from "../unit/fixtures/nvidia.ts";

afterAll(assertNothingLeft);

const testOnStandIn = testWith(needsStandIn);
const MiB = 2 ** 20;
const device = standInUuid(0);
const onDevice = { storage: "cuda_vmm", byte_size: 3 * MiB } as const;

interface Device {
  readonly uuid: string | null;
  readonly usable: boolean;
  readonly reason: string | null;
  readonly [key: string]: unknown;
}

interface Devices {
  readonly items: readonly Device[];
  readonly reason: string | null;
  readonly detail: string | null;
}

const devicesOf = (server: TestServer) => server.api.call<Devices>("GET", "/v1/devices");
const create = (server: TestServer, name: string) =>
  server.api.create({ name, ...onDevice, device_uuid: device, persist: true } as never);
const refusal = (server: TestServer, more: object = {}) =>
  server.api.problem("POST", "/v1/regions", { ...onDevice, ttl_ms: 60_000, ...more });
const findingOf = async (server: TestServer) => {
  const { findings } = await server.api.call<{ findings: { check: string; status: string; summary: string }[] }>(
    "GET",
    "/v1/doctor",
  );
  return findings.filter(({ check }) => check === "devices");
};

/** What the kernel's driver lists, by PCI address. @returns where. */
function layOutKernel(cuda: CudaStandIn, gpus: Readonly<Record<string, string>>): string {
  const kernel = join(cuda.folder, "kernel");
  for (const [busId, text] of Object.entries(gpus)) {
    mkdirSync(join(kernel, "gpus", busId), { recursive: true });
    writeFileSync(join(kernel, "gpus", busId, "information"), text);
  }
  writeFileSync(join(kernel, "version"), versions.open);
  return kernel;
}

testOnStandIn("a driver that hangs at its start keeps nobody from host memory, and is told of", async () => {
  await using cuda = new CudaStandIn();
  cuda.order("cuInit 1 hang");
  const env = { ...cuda.env, TEST_DRIVER_ANSWER_MS: "1" };
  await using server = await startServer({ env, isStepped: true, isWithoutDevices: true });
  server.log.expect(/^The CUDA driver has not answered for 1 ms/);
  await until("the driver hangs", () => cuda.wasOrdered("cuInit"));
  expect((await server.api.request("GET", "/livez")).status).toBe(200);
  const region = await server.api.create({ byte_size: 4096, ttl_ms: 60_000 });
  await server.api.delete(region.id);
  expect(await refusal(server)).toMatchObject({ status: 503, code: "not-ready" });
  expect((await devicesOf(server)).reason).toBe("driver-silent");
  expect(await findingOf(server)).toMatchObject([{ status: "error", summary: expect.stringContaining("hangs") }]);
  const told = await server.command("devices");
  expect(told.stdout).toContain("has not answered");
});

testOnStandIn("devices are there once their driver has answered, however late", async () => {
  await using cuda = new CudaStandIn({ devices: [{}, { vmm: false }] });
  cuda.order("cuInit 1 hang 1500");
  await using server = await startServer({ env: cuda.env, isWithoutDevices: true });
  await until("the driver hangs", () => cuda.wasOrdered("cuInit"));
  await server.api.delete((await server.api.create({ byte_size: 4096, ttl_ms: 60_000 })).id);
  const region = await until("a region can be made there", async () => {
    const answer = await server.api.request<Region>("POST", "/v1/regions", { ...onDevice, ttl_ms: 60_000 });
    if (answer.status !== 503) return answer.body;
    expect(answer.body).toMatchObject({ code: "not-ready" });
    return undefined;
  });
  expect(region.storage).toMatchObject({ device_uuid: device });
  await server.api.delete(region.id);
});

testOnStandIn("regions of an earlier server are handed out and freed while the driver hangs", async () => {
  await using cuda = new CudaStandIn({ devices: [{ granularity: MiB }] });
  await using server = await startServer({ env: cuda.env, isWithoutDevices: true });
  await until("the driver has answered", async () => (await devicesOf(server)).reason === null);
  const [kept, doomed] = [await create(server, "kept"), await create(server, "doomed")];
  await server.kill("SIGKILL");
  cuda.order("cuInit 1 hang 6000");
  await server.start();
  await until("the driver hangs", () => cuda.wasOrdered("cuInit"));
  const poolOf = async () => (await server.api.stats()).pools.find(({ pool }) => pool === device);
  expect(await poolOf()).toMatchObject({ limit_bytes: null, available_bytes: 0 });
  {
    using client = await connect(server);
    const attached = await client.attach(kept.id, { access: "rw" });
    expect(attached.reply.fds).toEqual(["region", "handle"]);
    client.letGo(attached.descriptors);
  }
  await server.api.delete(doomed.id);
  await until("its memory is free", () => cuda.inUse().length === 1);
  expect(await refusal(server, { device_uuid: device })).toMatchObject({ code: "not-ready" });
  // Nothing of that has waited for the driver.
  expect((await devicesOf(server)).reason).toBe("driver-asked");
  await until("the driver has answered", async () => (await devicesOf(server)).reason === null);
  // It tells only now in what pieces memory is given.
  await until("the pool is known", async () => (await poolOf())?.limit_bytes === 256 * MiB);
  expect(await poolOf()).toMatchObject({ used_bytes: 3 * MiB });
  await server.api.delete(kept.id);
  await create(server, "new");
});

testOnStandIn("a region of an earlier server is handed out where the driver does not start any more", async () => {
  await using cuda = new CudaStandIn();
  await using server = await startServer({ env: cuda.env });
  const kept = await create(server, "kept");
  expect((await server.command("top", "--once")).stdout).toContain(`4 MiB used, 0 B draining of 256 MiB on ${device}`);
  await server.kill("SIGKILL");
  const asked = cuda.calls().length;
  expect((await server.command("ls", "--offline")).stdout).toContain(kept.id);
  expect((await server.command("status", "--offline")).stdout).toContain(`4 MiB used on ${device}`);
  expect(cuda.calls().length, "a look asks no driver").toBe(asked);
  cuda.order("cuInit 1 999");
  server.log.expect(/^Cannot use device memory$/);
  await server.start();
  expect((await devicesOf(server)).reason).toBe("driver-failed");
  expect(await refusal(server, { device_uuid: device })).toMatchObject({
    code: "storage-unavailable",
    detail: expect.stringContaining("CUDA_ERROR_UNKNOWN"),
  });
  using client = await connect(server);
  client.letGo((await client.attach(kept.id)).descriptors);
  await server.api.delete(kept.id);
  await until("its memory is free", () => cuda.inUse().length === 0);
});

testOnStandIn(
  "each device says whether it can be used and why not, and the refusal of a region says the same",
  async () => {
    const mig = "MIG-11111111-2222-5333-8444-555555555555";
    await using cuda = new CudaStandIn({
      devices: [
        { uuid: mig, name: "Stand-in_MIG_1g.10gb" },
        { computeMode: 2 },
        { vmm: false },
        { posixFd: false },
        { computeMode: 3 },
      ],
    });
    const parent = information.plain.replace("0000:19:00.0", "0000:01:00.0");
    const kernel = layOutKernel(cuda, { "0000:01:00.0": parent, "0000:4c:00.0": information.excluded });
    await using server = await startServer({ env: { ...cuda.env, TEST_KERNEL_DRIVER: kernel }, isStepped: true });
    const { items, reason } = await devicesOf(server);
    expect(reason).toBeNull();
    expect(items.map((one) => [one.uuid, one.usable, one.reason])).toEqual([
      [mig, true, null],
      [standInUuid(1), false, "compute-mode-prohibited"],
      [standInUuid(2), false, "no-vmm"],
      [standInUuid(3), false, "no-fd-handles"],
      [standInUuid(4), true, null],
      ["GPU-8f6d3f2a-1c5b-4f0e-9b1d-2f3a4b5c6d7e", false, "mig-parent"],
      ["GPU-00000000-1111-2222-3333-444444444444", false, "excluded"],
    ]);
    const { id } = await server.api.create({ ...onDevice, device_uuid: mig, ttl_ms: 60_000 } as never);
    await server.api.delete(id);
    const prohibited = await refusal(server, { device_uuid: standInUuid(1) });
    expect(prohibited).toMatchObject({ code: "storage-unavailable", detail: expect.stringContaining("compute mode") });
    const lines = (await server.command("devices")).stdout.split("\n");
    expect(lines.find((line) => line.includes(standInUuid(2)))).toContain("no-vmm");
    const statuses = (await findingOf(server)).map(({ status }) => status);
    expect(statuses.toSorted()).toEqual(["ok", "ok", "warning", "warning", "warning", "warning", "warning"]);
  },
);

testOnStandIn("a divided GPU without an instance is told as such by NVML, and what is hidden as hidden", async () => {
  const [divided, hidden] = ["GPU-8f6d3f2a-1c5b-4f0e-9b1d-2f3a4b5c6d7e", "GPU-00000000-1111-2222-3333-444444444444"];
  await using cuda = new CudaStandIn({ nvml: true, devices: [{ uuid: divided, mig: true }, { uuid: hidden }] });
  const kernel = layOutKernel(cuda, {
    "0000:19:00.0": information.plain,
    "0000:4c:00.0": information.excluded.replace("Yes", "No"),
  });
  const env = { ...cuda.env, TEST_KERNEL_DRIVER: kernel, CUDA_VISIBLE_DEVICES: "7" };
  await using server = await startServer({ env, isStepped: true });
  const { items, reason } = await devicesOf(server);
  expect(reason).toBe("not-visible");
  expect(items.map((one) => [one.uuid, one.reason])).toEqual([
    [divided, "mig-parent"],
    [hidden, "not-visible"],
  ]);
  expect(items[1]?.detail).toContain('CUDA_VISIBLE_DEVICES is "7"');
});

testOnStandIn("an old driver is told by what it lacks", async () => {
  await using cuda = new CudaStandIn();
  await using server = await startServer({ env: cuda.oldEnv });
  const { items, reason, detail } = await devicesOf(server);
  expect({ items, reason }).toEqual({ items: [], reason: "driver-too-old" });
  expect(detail).toContain("cuMemCreate");
  expect(await findingOf(server)).toMatchObject([{ status: "warning" }]);
});

testOnStandIn(
  "what is free of a device NVML tells, without which nobody does, and nobody waits for it twice",
  async () => {
    await using cuda = new CudaStandIn({ nvml: true, devices: [{ persistence: true }] });
    await using server = await startServer({ env: cuda.env });
    const before = await devicesOf(server);
    const region = await create(server, "weights");
    expect(before.items).toMatchObject([{ free_bytes: 256 * MiB, others_bytes: 0, persistence_mode: true }]);
    expect((await devicesOf(server)).items).toMatchObject([
      { free_bytes: 252 * MiB, others_bytes: 0, allocated_bytes: 4 * MiB },
    ]);
    await server.api.delete(region.id);
    expect(cuda.calls("cuDevicePrimaryCtxRetain")).toEqual([]);

    await using hanging = new CudaStandIn({ nvml: "hang" });
    await using other = await startServer({ env: hanging.env });
    for (let round = 0; round < 2; round++) {
      const { items } = await devicesOf(other);
      expect(items).toMatchObject([{ usable: true, free_bytes: null, persistence_mode: null }]);
    }
  },
);

testOnStandIn("doctor without a server asks the driver by itself, and goes on without one that hangs", async () => {
  await using cuda = new CudaStandIn({ devices: [{ computeMode: 2 }] });
  const { name: TENSORD_INSTANCE, shmDirectory: TENSORD_SHM_DIR } = createInstance();
  const look = async () => {
    const { stdout } = await runTensord(["doctor", "--json"], { ...cuda.env, TENSORD_INSTANCE, TENSORD_SHM_DIR });
    const { findings } = JSON.parse(stdout) as Diagnosis;
    return findings.filter(({ check }) => check === "devices");
  };
  expect(await look()).toMatchObject([{ status: "warning", summary: expect.stringContaining("compute mode") }]);
  cuda.order("cuInit 1 hang");
  expect(await look()).toMatchObject([{ summary: expect.stringContaining("has not answered") }]);
});
