/**
 * The binding of the CUDA driver on the stand-in: how memory of a device comes, is handed on, and goes with its last process; what
 * a call says that fails; what a call that kills or hangs takes along. It shows nothing of a GPU. One after the other: beside each
 * other, on a busy machine, the runner missed what a process had written to its pipe.
 */

import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CallFailed, CudaProcess } from "../harness/cuda-process.ts";
import { CudaStandIn, needsStandIn, standInLibraries, standInUuid } from "../harness/cuda-stand-in.ts";
import { testWith } from "../harness/instance-needs.ts";
import { until } from "../harness/server-wait.ts";

const MiB = 2 ** 20;
const testCuda = testWith(needsStandIn);

async function failureOf(work: Promise<unknown>): Promise<Readonly<Record<string, unknown>>> {
  try {
    await work;
  } catch (error) {
    if (error instanceof CallFailed) return error.facts;
    throw error;
  }
  throw new Error("it did not fail");
}

/** A process in which the driver is open. */
async function startDriver(standIn: CudaStandIn, env: Readonly<Record<string, string>> = {}): Promise<CudaProcess> {
  const child = new CudaProcess({ ...standIn.env, ...env });
  await child.call("open");
  return child;
}

/** Imports and maps what `fd` names. @returns its address. */
async function map(child: CudaProcess, fd: number, byteSize: number, access = "read-write"): Promise<string> {
  const handle = await child.call("context.importFd", fd);
  const address = await child.call("context.reserve", byteSize);
  await child.call("context.map", address, byteSize, handle);
  await child.call("context.setAccess", address, byteSize, access);
  await child.call("context.release", handle);
  return address;
}

async function fill(child: CudaProcess, address: string, byte: number, byteSize: number): Promise<void> {
  const stream = await child.call("context.createStream");
  await child.call("context.fill", address, byte, byteSize, stream);
  await child.call("context.synchronizeStream", stream);
}

/** The different bytes of memory of a device. */
async function read(child: CudaProcess, address: string, byteSize: number): Promise<number[]> {
  const [host, stream] = [await child.call("host", byteSize, 0), await child.call("context.createStream")];
  await child.call("context.copyToHost", host, address, byteSize, stream);
  await child.call("context.synchronizeStream", stream);
  return await child.call<number[]>("bytes", host);
}

testCuda(
  "memory of a device stands as long as any process has a descriptor or a mapping of it, and no longer",
  async () => {
    await using standIn = new CudaStandIn();
    await using maker = await startDriver(standIn);
    await using user = await startDriver(standIn);
    const handle = await maker.call("driver.create", 0, 4 * MiB);
    const fd = await maker.call<number>("driver.exportFd", handle);
    expect(standIn.inUse()).toEqual([{ kind: "memory", card: 0, pid: maker.pid, bytes: 4 * MiB }]);

    const theirs = await maker.give(fd, user, join(standIn.folder, "socket"));
    await user.call("openContext", 0);
    const address = await map(user, theirs, 4 * MiB);
    await user.call("closeFd", theirs);
    await fill(user, address, 7, 4 * MiB);
    await maker.kill();
    expect(await read(user, address, 4 * MiB)).toEqual([7]);
    expect(standIn.inUse("memory")).toHaveLength(1);
    await user.kill();
    expect(standIn.inUse()).toEqual([]);
  },
);

testCuda("a process that creates and exports memory makes no context, and one that maps it has one", async () => {
  await using standIn = new CudaStandIn({ contextBytes: 8 * MiB });
  await using maker = await startDriver(standIn);
  const handle = await maker.call("driver.create", 0, 2 * MiB);
  await maker.call("closeFd", await maker.call("driver.exportFd", handle));
  expect(standIn.inUse("context")).toEqual([]);
  await maker.call("driver.release", handle);
  expect(standIn.inUse()).toEqual([]);
  await maker.call("openContext", 0);
  expect(standIn.inUse("context")).toEqual([{ kind: "context", card: 0, pid: maker.pid, bytes: 8 * MiB }]);
  expect(await maker.call("context.memoryInfo")).toEqual({ freeBytes: 248 * MiB, totalBytes: 256 * MiB } as never);
  await maker.call("closeContext");
  expect(standIn.inUse()).toEqual([]);
});

testCuda("a device is found by its UUID wherever a process counts it, and is not where it is hidden", async () => {
  await using standIn = new CudaStandIn({ devices: [{}, { name: "A100_MIG_1g.5gb" }, {}] });
  const uuids = [0, 1, 2].map(standInUuid);
  const seen = async (visible: Readonly<Record<string, string>>) => {
    await using child = await startDriver(standIn, visible);
    return await Promise.all(
      [uuids[0], uuids[1]?.replace("GPU", "MIG"), uuids[2]].map((uuid) => child.call("driver.findDevice", uuid)),
    );
  };
  expect(await seen({})).toEqual([0, 1, 2] as never);
  expect(await seen({ CUDA_VISIBLE_DEVICES: "2,0" })).toEqual([1, undefined, 0] as never);
  expect(await seen({ CUDA_VISIBLE_DEVICES: uuids[2] ?? "" })).toEqual([undefined, undefined, 0] as never);
});

testCuda("memory of a device that the importer does not see is refused as an invalid device", async () => {
  await using standIn = new CudaStandIn({ devices: [{}, {}] });
  await using maker = await startDriver(standIn);
  await using user = await startDriver(standIn, { CUDA_VISIBLE_DEVICES: "1" });
  const fd = await maker.call<number>("driver.exportFd", await maker.call("driver.create", 0, 2 * MiB));
  const theirs = await maker.give(fd, user, join(standIn.folder, "socket"));
  await user.call("openContext", 0);
  expect(await failureOf(user.call("context.importFd", theirs))).toMatchObject({ result: 101 });
});

testCuda(
  "a failed call says which, and the driver's number, name and words; a number without a name is one too",
  async () => {
    await using standIn = new CudaStandIn({ devices: [{ bytes: 4 * MiB }] });
    await using child = await startDriver(standIn);
    expect(await failureOf(child.call("driver.create", 0, 6 * MiB))).toEqual({
      kind: "DriverError",
      message: "cuMemCreate: CUDA_ERROR_OUT_OF_MEMORY (out of memory)",
      call: "cuMemCreate",
      result: 2,
      code: "CUDA_ERROR_OUT_OF_MEMORY",
    });
    standIn.order("cuMemCreate 1 4711");
    expect(await failureOf(child.call("driver.create", 0, 2 * MiB))).toMatchObject({
      message: "cuMemCreate: CUresult 4711",
      result: 4711,
      code: "CUresult 4711",
    });
    expect(standIn.inUse()).toEqual([]);
  },
);

testCuda("sizes, ranges, access and order are held to the driver's rules", async () => {
  await using standIn = new CudaStandIn();
  await using child = await startDriver(standIn);
  const refused = async (deed: string, ...args: readonly unknown[]) =>
    (await failureOf(child.call(deed, ...args))).result;
  const gran = await child.call<number>("driver.granularity", 0);
  expect(gran).toBe(2 * MiB);
  expect(await refused("driver.create", 0, gran + 4096)).toBe(1);
  expect(await refused("driver.create", 3, gran)).toBe(101);
  const [one, two] = [await child.call("driver.create", 0, gran), await child.call("driver.create", 0, gran)];
  await child.call("openContext", 0);
  const address = await child.call("context.reserve", 2 * gran);
  const next = `${BigInt(address.slice(0, -1)) + BigInt(gran)}n`;
  expect(await refused("context.map", address, 2 * gran, one)).toBe(1);
  await child.call("context.map", address, gran, one);
  expect(await refused("context.map", address, gran, two)).toBe(1);
  await child.call("context.map", next, gran, two);
  // Nobody reaches what was mapped before access is set, and only that access is there.
  const stream = await child.call("context.createStream");
  await child.call("context.setAccess", address, 2 * gran, "read");
  expect(await read(child, address, 2 * gran)).toEqual([0]);
  expect(await refused("context.unmap", address, 2 * gran)).toBe(1);
  expect(await refused("context.free", address, 2 * gran)).toBe(1);
  await child.call("context.release", one);
  expect(await refused("context.release", one)).toBe(1);
  await child.call("context.unmap", address, gran);
  expect(standIn.inUse("memory")).toHaveLength(1);
  await child.call("context.unmap", next, gran);
  await child.call("context.free", address, 2 * gran);
  await child.call("driver.release", two);
  expect(standIn.inUse("memory")).toEqual([]);
  // What reaches nothing breaks the context for good.
  await child.call("context.fill", address, 1, 16, stream);
  expect(await refused("context.synchronizeStream", stream)).toBe(700);
  expect(await refused("context.synchronize")).toBe(700);
  expect(await refused("driver.deviceCount")).toBe(700);
});

testCuda("what is queued has not happened before somebody waits for it", async () => {
  await using standIn = new CudaStandIn({ dirty: true });
  await using child = await startDriver(standIn);
  await child.call("openContext", 0);
  const fd = await child.call<number>("driver.exportFd", await child.call("driver.create", 0, 2 * MiB));
  const address = await map(child, fd, 2 * MiB);
  expect(await read(child, address, 64)).toEqual([0xa5]);
  const [host, stream, mark] = [
    await child.call("host", 64, 3),
    await child.call("context.createStream"),
    await child.call("context.createMark"),
  ];
  await child.call("context.copyToDevice", address, host, 64, stream);
  await child.call("context.record", mark, stream);
  expect(await read(child, address, 64)).toEqual([0xa5]);
  expect(await child.call<boolean>("context.isReached", mark)).toBeFalse();
  expect(await child.call<boolean>("context.isReached", mark)).toBeTrue();
  expect(await read(child, address, 64)).toEqual([3]);
});

testCuda("a call that crashes or kills its process frees all that it had", async () => {
  await using standIn = new CudaStandIn();
  for (const [how, signal] of [
    ["crash", "SIGSEGV"],
    ["kill", "SIGKILL"],
    ["after kill", "SIGKILL"],
  ]) {
    standIn.order(`cuMemCreate 2 ${how}`);
    await using child = await startDriver(standIn);
    await child.call("driver.create", 0, 2 * MiB);
    expect(standIn.inUse()).toHaveLength(1);
    const second = child.call("driver.create", 0, 2 * MiB);
    await expect(second).rejects.toThrow("ended before it answered");
    expect(await child.ended()).toBe(signal ?? "");
    expect(standIn.inUse()).toEqual([]);
  }
});

testCuda("a call that hangs holds its process alone", async () => {
  await using standIn = new CudaStandIn();
  await using other = await startDriver(standIn);
  await using child = await startDriver(standIn);
  standIn.order("cuDeviceGetName 1 hang");
  const hung = child.call("driver.name", 0);
  hung.catch(() => undefined);
  // It logs what it was told to do before it does it.
  await until("it hangs", () => standIn.wasOrdered("cuDeviceGetName"));
  expect(await other.call("driver.create", 0, 2 * MiB)).toEndWith("n");
  await child.kill();
  await expect(hung).rejects.toThrow("ended before it answered");
});

testCuda("without a device the driver is not there, in its own words", async () => {
  await using standIn = new CudaStandIn({ devices: [] });
  await using child = new CudaProcess(standIn.env);
  expect(await failureOf(child.call("open"))).toEqual({
    kind: "NoDriver",
    message: "cuInit: CUDA_ERROR_NO_DEVICE (no CUDA-capable device is detected)",
    reason: "no-device",
  });
});

testCuda("a library of that name in the working directory is not loaded", async () => {
  const folder = mkdtempSync(join(tmpdir(), "tensord-decoy-"));
  using _ = { [Symbol.dispose]: () => rmSync(folder, { recursive: true }) };
  await using standIn = new CudaStandIn();
  // The stand-in is the decoy: where it is loaded, its log tells of calls.
  await Bun.write(join(folder, "libcuda.so.1"), Bun.file(join(standInLibraries, "libcuda.so.1")));
  const tryToOpen = async (env: Readonly<Record<string, string>>) => {
    await using child = new CudaProcess({ STAND_IN_CUDA_DIR: standIn.folder, ...env }, { cwd: folder });
    // A machine may have a driver of its own, which is not the decoy.
    await child.call("open").catch(() => undefined);
    return standIn.calls("cuInit").length;
  };
  expect(await tryToOpen({})).toBe(0);
  expect(await tryToOpen({ LD_LIBRARY_PATH: folder })).toBe(1);
});

test("a library that does not load is not there, in the loader's words", async () => {
  const folder = mkdtempSync(join(tmpdir(), "tensord-broken-"));
  using _ = { [Symbol.dispose]: () => rmSync(folder, { recursive: true }) };
  writeFileSync(join(folder, "libcuda.so.1"), "no library");
  await using child = new CudaProcess({ LD_LIBRARY_PATH: folder });
  const { kind, reason, message } = await failureOf(child.call("open"));
  expect({ kind, reason }).toEqual({ kind: "NoDriver", reason: "no-libcuda" });
  expect(message).toContain(join(folder, "libcuda.so.1"));
});
