/**
 * Copies to a device and checksums there, by processes of their own on the stand-in driver: what they do, and that one which fails, crashes, is killed or
 * hangs at any call is an error of its operation alone. It shows nothing about a GPU.
 */

import { afterAll, expect } from "bun:test";
import { closeSync, openSync, writeSync } from "node:fs";
import { CudaStandIn, needsStandIn, standInUuid } from "../harness/cuda-stand-in.ts";
import { connect, readBooks, untilAsBefore } from "../harness/device-server.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { testWith } from "../harness/instance-needs.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import type { Region } from "../harness/server-api.ts";
import { until } from "../harness/server-wait.ts";

afterAll(assertNothingLeft);

const testOnStandIn = testWith(needsStandIn);
const MiB = 2 ** 20;
const device = standInUuid(0);
/** In range of a test, and long enough for a machine that is busy. */
const answerMs = 4000;

interface Operation {
  readonly id: string;
  readonly state: string;
  readonly region: string | null;
  readonly problem: { readonly code: string; readonly detail: string } | null;
  readonly done_bytes: number;
  readonly total_bytes: number;
  readonly ended_at: string | null;
}

async function createSource(server: TestServer, byteSize = 3 * MiB, more: object = {}): Promise<Region> {
  const source = await server.api.create({ byte_size: byteSize, ttl_ms: 600_000, ...more } as never);
  const file = openSync(source.storage.path, "r+");
  writeSync(file, Buffer.alloc(byteSize, "tensor of a test"), 0, byteSize, source.storage.byte_size - byteSize);
  closeSync(file);
  return await server.api.seal(source.id, { checksum: true });
}

/** With a region on the device, so that the fd holder is there. */
async function look(server: TestServer, cuda: CudaStandIn) {
  await server.api.create({
    storage: "cuda_vmm",
    device_uuid: device,
    byte_size: 1,
    persist: true,
    name: "kept",
  } as never);
  return await readBooks(server, cuda);
}

async function begin(server: TestServer, source: Region, more: object = {}): Promise<Operation> {
  const target = { storage: "cuda_vmm", device_uuid: device, ttl_ms: 600_000, ...more };
  return await server.api.call("POST", `/v1/regions/${source.id}/copy`, target);
}

async function endOf(server: TestServer, { id }: Operation): Promise<Operation> {
  return await until("the operation has ended", async () => {
    const operation = await server.api.call<Operation>("GET", `/v1/operations/${id}`);
    return operation.ended_at !== null && operation;
  });
}

testOnStandIn(
  "a copy on a device has the bytes and the checksum of its source, sealed, and its process is gone",
  async () => {
    await using cuda = new CudaStandIn({ devices: [{}, {}], dirty: true, contextBytes: 8 * MiB });
    await using server = await startServer({ env: cuda.env });
    const source = await createSource(server);
    const ended = await endOf(server, await begin(server, source, { name: "on-device" }));
    expect(ended).toMatchObject({ state: "succeeded", done_bytes: 6 * MiB, total_bytes: 6 * MiB });
    const copy = await server.api.get(ended.region as string);
    expect(copy).toMatchObject({
      state: "sealed",
      storage: { kind: "cuda_vmm", format: "raw" },
      checksum: source.checksum,
    });
    expect(await server.api.verify(copy.id)).toMatchObject({ ok: true });
    // All that is left of it is the region's memory; the server made no context itself.
    expect(cuda.inUse()).toMatchObject([{ kind: "memory", bytes: 4 * MiB, pid: server.pid }]);
    expect(new Set(cuda.calls("cuDevicePrimaryCtxRetain").map(({ pid }) => pid)).has(server.pid as number)).toBeFalse();
    using client = await connect(server);
    const attached = await client.attach(copy.id);
    expect(attached.reply.fds).toEqual(["region", "handle"]);
    client.letGo(attached.descriptors);
    expect(await server.api.get(source.id)).toMatchObject({ in_use: false });
  },
);

/** What a copier calls, by what the stand-in saw of one. */
async function callsOfCopiers(server: TestServer, cuda: CudaStandIn, source: Region): Promise<string[]> {
  const { region } = await endOf(server, await begin(server, source));
  await server.api.delete(region as string);
  const names = cuda.calls().flatMap((call) => (call.pid === server.pid ? [] : [call.function]));
  return [...new Set(names)];
}

testOnStandIn("a driver that fails, kills or crashes a copier at any of its calls fails that copy alone", async () => {
  await using cuda = new CudaStandIn();
  await using server = await startServer({ env: cuda.env });
  const source = await createSource(server);
  const names = await callsOfCopiers(server, cuda, source);
  expect(names.length).toBeGreaterThan(15);
  const before = await readBooks(server, cuda);
  const actions = ["999", "kill", "crash", "sticky 719", "after kill"];
  for (const [index, name] of names.entries()) {
    const action = actions[index % actions.length] as string;
    cuda.order(`${name} 1 ${action}`);
    const ended = await endOf(server, await begin(server, source, { name: "copy" }));
    const where = `${name} ${action}`;
    // What is asked of an error alone is not asked for here.
    expect(ended, where).toMatchObject({ state: "failed", region: null, problem: { code: "io-error" } });
    expect(ended.problem?.detail, where).toContain(`on device ${device}`);
    cuda.order("none 1 0");
    await untilAsBefore(server, cuda, before);
  }
  cuda.order("cuDevicePrimaryCtxRetain 1 2");
  expect(await endOf(server, await begin(server, source))).toMatchObject({ problem: { code: "out-of-device-memory" } });
  cuda.order("none 1 0");
  await untilAsBefore(server, cuda, before);
  expect(await endOf(server, await begin(server, source, { name: "copy" }))).toMatchObject({ state: "succeeded" });
});

testOnStandIn("a copier that hangs is ended: after a while, and at once when its copy is cancelled", async () => {
  await using cuda = new CudaStandIn();
  await using server = await startServer({
    env: { ...cuda.env, TEST_DRIVER_ANSWER_MS: String(answerMs) },
    isStepped: true,
  });
  const source = await createSource(server);
  const before = await look(server, cuda);
  for (const call of ["cuDevicePrimaryCtxRetain", "cuEventSynchronize"]) {
    cuda.order(`${call} 1 hang`);
    const begun = await begin(server, source);
    await until("the call hangs", () => cuda.wasOrdered(call));
    expect(await server.api.get(source.id)).toMatchObject({ in_use: true });
    expect(await endOf(server, begun)).toMatchObject({ state: "failed", problem: { code: "deadline-exceeded" } });
    await untilAsBefore(server, cuda, before);
  }
  cuda.order("cuStreamSynchronize 1 hang");
  const begun = await begin(server, source);
  await until("the call hangs", () => cuda.wasOrdered("cuStreamSynchronize"));
  const cancelled = await server.api.call<Operation>("DELETE", `/v1/operations/${begun.id}`);
  expect(cancelled).toMatchObject({ state: "cancelled", region: null });
  await untilAsBefore(server, cuda, before);
  expect(await server.api.get(source.id)).toMatchObject({ in_use: false });
});

testOnStandIn("a server that is killed takes its copiers along, and what they had of the device", async () => {
  await using cuda = new CudaStandIn({ contextBytes: 8 * MiB });
  await using server = await startServer({ env: cuda.env });
  const source = await createSource(server);
  const before = await look(server, cuda);
  cuda.order("cuEventSynchronize 1 hang");
  await begin(server, source, { name: "copy" });
  await until("the call hangs", () => cuda.wasOrdered("cuEventSynchronize"));
  expect(cuda.inUse("context")).toHaveLength(1);
  await server.kill("SIGKILL");
  await until("the copier is gone", () => cuda.inUse("context").length === 0);
  cuda.order("none 1 0");
  await server.start();
  await untilAsBefore(server, cuda, before);
  expect(await server.api.get(source.id)).toMatchObject({ state: "sealed", in_use: false });
});

testOnStandIn("a server that stops ends its copiers, and leaves nothing of the copy", async () => {
  await using cuda = new CudaStandIn();
  await using server = await startServer({ env: cuda.env });
  const source = await createSource(server);
  const before = await look(server, cuda);
  cuda.order("cuEventSynchronize 1 hang");
  await begin(server, source);
  await until("the call hangs", () => cuda.wasOrdered("cuEventSynchronize"));
  await server.stop();
  expect(cuda.inUse()).toHaveLength(1);
  cuda.order("none 1 0");
  await server.start();
  await untilAsBefore(server, cuda, before);
});

testOnStandIn("a source that is deleted, or ends, meanwhile is kept until its copy is done", async () => {
  await using cuda = new CudaStandIn();
  await using server = await startServer({ env: cuda.env });
  const source = await createSource(server);
  cuda.order("cuEventSynchronize 1 hang 1000");
  const begun = await begin(server, source);
  await until("the call hangs", () => cuda.wasOrdered("cuEventSynchronize"));
  expect(await server.api.delete(source.id)).toMatchObject({ state: "draining" });
  expect(await endOf(server, begun)).toMatchObject({ state: "succeeded" });
  await server.api.untilGone(source.id);
});

testOnStandIn("a device without room, and one that is not there, refuse a copy and leave nothing of it", async () => {
  await using cuda = new CudaStandIn({ devices: [{ bytes: 8 * MiB }] });
  await using server = await startServer({ env: cuda.env });
  const source = await createSource(server, 9 * MiB);
  const before = await readBooks(server, cuda);
  expect(await endOf(server, await begin(server, source))).toMatchObject({ problem: { code: "pool-full" } });
  const elsewhere = { storage: "cuda_vmm", device_uuid: "GPU-nowhere", ttl_ms: 1000 };
  const problem = await server.api.problem("POST", `/v1/regions/${source.id}/copy`, elsewhere);
  expect(problem.code).toBe("storage-unavailable");
  await untilAsBefore(server, cuda, before);
});

testOnStandIn("many copies to one device come one after another, and all are whole", async () => {
  await using cuda = new CudaStandIn();
  await using server = await startServer({ env: cuda.env });
  const source = await createSource(server, 1 * MiB);
  const begun = await Promise.all(Array.from({ length: 6 }, () => begin(server, source)));
  const ended = await Promise.all(begun.map((operation) => endOf(server, operation)));
  expect(ended.map(({ state }) => state)).toEqual(begun.map(() => "succeeded"));
  for (const { region } of ended) {
    expect(await server.api.get(region as string)).toMatchObject({ checksum: source.checksum });
  }
});

testOnStandIn("a seal on a device takes the checksum of what is there, and a damage is found by it", async () => {
  await using cuda = new CudaStandIn();
  await using server = await startServer({ env: cuda.env });
  const onDevice = { storage: "cuda_vmm", device_uuid: device, byte_size: 1000, ttl_ms: 600_000 } as never;
  const { id } = await server.api.create(onDevice);
  using client = await connect(server);
  const { descriptors } = await client.attach(id, { access: "rw" });
  // The stand-in's memory is a file.
  writeSync(descriptors[1] as number, Buffer.alloc(1000, 7), 0, 1000, 0);
  client.letGo(descriptors);
  const sealed = await server.api.seal(id, { checksum: true });
  expect(sealed.checksum?.value).toBe(Bun.hash.xxHash3(Buffer.alloc(1000, 7)).toString(16).padStart(16, "0"));
  const reader = await client.attach(id);
  writeSync(reader.descriptors[1] as number, Buffer.from([8]), 0, 1, 999);
  client.letGo(reader.descriptors);
  expect(await server.api.verify(id)).toMatchObject({ ok: false, expected: sealed.checksum?.value });
});
