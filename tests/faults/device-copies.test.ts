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
