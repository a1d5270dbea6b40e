/**
 * A C program that maps a region on a device through `clients/c/tensord.h` and the driver, here the stand-in for it: it shows which calls
 * are made, in which order, and who sees the lease. It shows nothing about a GPU.
 */

import { afterAll, beforeAll, expect } from "bun:test";
import { readdirSync, readlinkSync } from "node:fs";
import { CProgram, needsCompiler } from "../harness/c-program.ts";
import { CudaStandIn, needsStandIn, standInUuid } from "../harness/cuda-stand-in.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { testWith } from "../harness/instance-needs.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import { until } from "../harness/server-wait.ts";

const MiB = 2 ** 20;
const device = standInUuid(1);
const needs = needsCompiler ?? needsStandIn;
/** Of bytes 1, 2, 3, 1, 2, 3 …, as the program writes them into `b`, which lies behind the 24 bytes of `w`. */
const told = "U8 of 3000 bytes at 24, sum of bytes 6000";

let onDevice: CProgram;
let onHost: CProgram;
beforeAll(() => {
  if (needs !== undefined) return;
  onDevice = CProgram.compile("clients/c/example-device.c");
  onHost = CProgram.compile("clients/c/example.c");
});
afterAll(() => {
  if (needs === undefined) for (const program of [onDevice, onHost]) program[Symbol.dispose]();
  assertNothingLeft();
});

interface Parts {
  readonly cuda: CudaStandIn;
  readonly server: TestServer;
  /** The region's id. */
  readonly id: string;
  readonly env: Record<string, string>;
}

/** A server with two cards, and an open region on the second. */
async function withRegion(use: (parts: Parts) => Promise<void>): Promise<void> {
  await using cuda = new CudaStandIn({ devices: [{}, {}] });
  await using server = await startServer({ env: cuda.env });
  const { id } = await server.api.create({
    ...{ name: "weights", storage: "cuda_vmm", device_uuid: device, persist: true },
    tensors: [
      { name: "w", dtype: "F32", shape: [2, 3] },
      { name: "b", dtype: "U8", shape: [3000] },
    ],
  } as never);
  await use({ cuda, server, id, env: { ...cuda.env, TENSORD_URL: `unix://${server.instance.socket}` } });
}

/** Descriptors of a process that lead to the region or its memory. */
function countDescriptors(pid: number): number {
  const targets = readdirSync(`/proc/${pid}/fd`).map((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`);
    } catch {
      // Closed meanwhile.
      return "";
    }
  });
  return targets.filter((target) => /cuda_vmm-|card\d\/memory-/.test(target)).length;
}

testWith(needs)("a C program writes and reads memory of a device, and is its holder until it lets go", () =>
  withRegion(async ({ cuda, server, id, env }) => {
    await using writer = onDevice.run(["--write", "weights", "b"], [], env);
    expect(await writer.line()).toBe(told);
    const client = { name: "example-device.c", pid: writer.pid };
    expect(await server.api.get(id)).toMatchObject({
      ...{ in_use: true, has_writers: true, holders: [{ client, mappings: 1, writable: true }] },
    });
    expect((await server.api.problem("POST", `/v1/regions/${id}/seal`, {})).code).toBe("region-has-writers");
    expect(await writer.end()).toEqual({ status: 0, stderr: "" });
    const calls = cuda.calls().filter(({ pid }) => pid === writer.pid);
    const names = calls.map((call) => call.function.replace(/_v2$/, ""));
    const last = ["cuCtxSynchronize", "cuMemUnmap", "cuMemAddressFree", "cuDevicePrimaryCtxRelease"];
    expect(names.slice(-last.length)).toEqual(last);
    await server.api.seal(id);

    await using reader = onDevice.run(["weights", "b"], [], env);
    expect(await reader.line()).toBe(told);
    // Its lease file. The mapping needs no descriptor.
    expect(countDescriptors(reader.pid)).toBe(1);
    expect(await server.api.get(id)).toMatchObject({ in_use: true, has_writers: false });
    expect(await reader.end()).toEqual({ status: 0, stderr: "" });
    await until("nobody has it", async () => (await server.api.get(id)).holders.length === 0);
    expect((await server.api.get(id)).in_use).toBe(false);
  }),
);

testWith(needs)("its lease outlives the server, and ends with a killed program", () =>
  withRegion(async ({ cuda, server, id, env }) => {
    await using run = onDevice.run(["--write", "weights", "b"], [], env);
    expect(await run.line()).toBe(told);
    await server.crash();
    expect(await server.api.get(id)).toMatchObject({ in_use: true, has_writers: true, holders: [] });
    expect((await server.api.delete(id)).state).toBe("draining");
    expect(await run.next()).toBe(told);
    expect(cuda.inUse("memory")).toMatchObject([{ card: 1, bytes: 2 * MiB }]);
    await run.kill();
    await server.api.untilGone(id);
    await until("the memory is free", () => cuda.inUse("memory").length === 0);
  }),
);

testWith(needs)("what cannot be had so is refused with what to do, and nothing is left of it", () =>
  withRegion(async ({ server, id, env }) => {
    await server.api.create({ name: "host", byte_size: 8, persist: true });
    const few = (count: number) => ["sh", "-c", `ulimit -n ${count} && exec "$0" "$@"`];
    for (const [program, args, prefix, words] of [
      [onDevice, ["host"], [], /^feature-unavailable: .* it is in host memory\ntensord_attach maps it\.\n$/],
      [onHost, ["weights"], [], /^feature-unavailable: .* it is memory of a device\ntensord_attach_device /],
      [onDevice, ["weights", "v"], [], /^tensor-not-found: Cannot find tensor v/],
      [onDevice, ["absent"], [], /^region-not-found: /],
      [onDevice, ["n".repeat(300)], [], /^validation-failed: /],
      [onDevice, ["weights"], few(5), /^out-of-descriptors: .*\nClose files, or raise the limit/],
      [onDevice, ["weights"], few(6), /^out-of-descriptors: .*\nClose files, or raise the limit/],
    ] as const) {
      await using run = program.run(args, prefix, env);
      const { status, stderr } = await run.end();
      expect(stderr).toMatch(words);
      expect(status).toBe(1);
    }
    await server.api.seal(id);
    await using run = onDevice.run(["--write", "weights", "b"], [], env);
    expect((await run.end()).stderr).toMatch(/^region-sealed: /);
    await until("nobody has it", async () => (await server.api.get(id)).holders.length === 0);
    expect((await server.api.get(id)).in_use).toBe(false);
  }),
);
