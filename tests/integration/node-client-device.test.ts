/**
 * Regions on a device in the Node client: descriptors, numbers and a lease, on the stand-in driver, whose descriptors are files that can be read
 * (a card's cannot). It shows nothing about a GPU.
 */

import { afterAll, expect } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { setLock, trySetLock } from "../../clients/node/src/memory/lock.ts";
import { CudaStandIn, needsStandIn, standInUuid } from "../harness/cuda-stand-in.ts";
import { connect } from "../harness/device-server.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { root, testWith } from "../harness/instance-needs.ts";
import { needsNodeClient, type Runtime, runProgram, runtimes, startProgram } from "../harness/node-program.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import { until } from "../harness/server-wait.ts";

afterAll(assertNothingLeft);

const MiB = 2 ** 20;
const device = standInUuid(0);

const leaseByte = 1n << 62n;

/** Keeps a handle, and gives the descriptor of another to the thread that asks. */
const thread = join(root, ".tmp/node-client-device/thread.mjs");
mkdirSync(dirname(thread), { recursive: true });
writeFileSync(
  thread,
  `
    import { parentPort } from "node:worker_threads";
    import { connect } from "@tensord/client";
    const client = await connect();
    globalThis.kept = [await client.attachOnDevice("open"), await client.attachOnDevice("open")];
    if (globalThis.kept[0].fd > 0) parentPort.postMessage(globalThis.kept[1].takeFd());
    setInterval(() => undefined, 1000);
  `,
);

/** One test for each runtime. */
function testOnEach(name: string, run: (runtime: Runtime) => Promise<void>): void {
  for (const runtime of Object.keys(runtimes) as Runtime[]) {
    testWith(needsNodeClient ?? needsStandIn)(`${runtime}: ${name}`, () => run(runtime));
  }
}

const tensors = [
  { name: "w", dtype: "F32", shape: [2, 3] },
  { name: "b", dtype: "U8", shape: [8] },
] as const;

const create = (server: TestServer, name: string, more: object = {}) =>
  server.api.create({ name, storage: "cuda_vmm", tensors, persist: true, ...more } as never);

/** What programs find: how many descriptors of this process lead to the region or its memory. */
const counting = `
  const fs = await import("node:fs");
  const countDescriptors = () => fs.readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return /cuda_vmm-|card0\\/memory-/.test(fs.readlinkSync("/proc/self/fd/" + fd));
    } catch {
      return false;
    }
  }).length;
`;

testOnEach(
  "what a native addon needs comes from attachOnDevice, and the region is leased until close",
  async (runtime) => {
    await using cuda = new CudaStandIn();
    await using server = await startServer({ env: cuda.env });
    const region = await create(server, "weights");
    const [w, b] = region.tensors;
    await using program = startProgram(
      runtime,
      server.env,
      `${counting}
      const client = await connect({ session: { name: "addon" } });
      const writer = await client.attachOnDevice("weights", { writable: true });
      const { id, name, deviceUuid, handleType, byteSize, allocationBytes, granularity, isWritable } = writer;
      const offsets = [...writer.tensors.values()].map(({ name, byteOffset, byteSize }) => [name, byteOffset, byteSize]);
      tell({ id, name, deviceUuid, handleType, byteSize, allocationBytes, granularity, isWritable, offsets });
      fs.writeSync(writer.fd, new Float32Array([1, 2, 3, 4, 5, 6]), 0, 24, writer.tensors.get("w").byteOffset);
      tell({ sealed: await codeOf(() => client.seal([writer])), same: writer.fd === writer.fd });
      await receive();
      writer.close();
      writer.close();
      const after = { fd: await codeOf(() => writer.fd), taken: await codeOf(() => writer.takeFd()), left: countDescriptors() };
      await client.seal([writer]);
      const reader = await client.attachOnDevice("weights");
      const again = await client.attachOnDevice(await client.getById(id));
      const fd = reader.takeFd();
      const codes = [await codeOf(() => reader.fd), await codeOf(() => reader.takeFd())];
      again.close();
      const bytes = new Float32Array(6);
      fs.readSync(fd, bytes, 0, 24, reader.tensors.get("w").byteOffset);
      tell({ after, codes, bytes: [...bytes], isWritable: reader.isWritable, isClosed: reader.isClosed });
      await receive();
      reader[Symbol.dispose]();
      const { size } = fs.fstatSync(fd);
      fs.closeSync(fd);
      const { inspect } = await import("node:util");
      tell({ size, left: countDescriptors(), shown: inspect(reader) });
      await receive();
      client.close();
      `,
    );
    expect(await program.hear<unknown>()).toEqual({
      ...{ id: region.id, name: region.name, deviceUuid: device, handleType: "posix_fd", isWritable: true },
      ...{ byteSize: region.storage.byte_size, allocationBytes: 2 * MiB, granularity: 2 * MiB },
      offsets: [w, b].map((tensor) => [tensor?.name, tensor?.byte_offset, tensor?.byte_size]),
    });
    expect(await program.hear<unknown>()).toEqual({ sealed: "region-has-writers", same: true });
    const holders = (writable: boolean) => [{ client: { name: "addon", pid: program.pid }, mappings: 1, writable }];
    const untilHeld = (writable: boolean) =>
      until(
        "it is told who has it",
        async () => (await server.api.get(region.id)).holders.at(0)?.writable === writable,
      );
    await untilHeld(true);
    expect(await server.api.get(region.id)).toMatchObject({
      ...{ in_use: true, has_writers: true, holders: holders(true) },
    });
    await program.say("seal");
    expect(await program.hear<unknown>()).toEqual({
      after: { fd: "closed", taken: "closed", left: 0 },
      ...{ codes: ["closed", "closed"], bytes: [1, 2, 3, 4, 5, 6], isWritable: false, isClosed: false },
    });
    await untilHeld(false);
    expect(await server.api.get(region.id)).toMatchObject({ in_use: true, holders: holders(false) });
    await program.say("close");
    expect(await program.hear<unknown>()).toEqual({
      ...{ size: 2 * MiB, left: 0 },
      shown: `DeviceHandle of ${region.id} (default/weights) on ${device}, sealed, closed here { "w": F32 [2, 3], "b": U8 [8] }`,
    });
    await until("nobody has it", async () => (await server.api.get(region.id)).holders.length === 0);
    expect((await server.api.get(region.id)).in_use).toBe(false);
    await program.say("end");
    await program.end();
    await server.api.delete(region.id);
  },
);

testOnEach("a holder that is killed frees a region that was deleted, and one that closes does", async (runtime) => {
  await using cuda = new CudaStandIn();
  await using server = await startServer({ env: cuda.env });
  for (const isKilled of [true, false]) {
    const { id } = await create(server, "weights");
    await server.api.seal(id);
    await using program = startProgram(
      runtime,
      server.env,
      `
        const client = await connect();
        const handle = await client.attachOnDevice("weights");
        tell(handle.takeFd() > 2);
        await receive();
        handle.close();
        tell("closed");
        await receive();
        `,
    );
    expect(await program.hear<unknown>()).toBe(true);
    expect((await server.api.delete(id)).state).toBe("draining");
    expect(cuda.inUse("memory")).toHaveLength(1);
    if (isKilled) await program.kill();
    else {
      await program.say("close");
      await program.hear();
    }
    await server.api.untilGone(id);
    const { pools } = await server.api.stats();
    expect(pools.find(({ pool }) => pool === device)).toMatchObject({ used_bytes: 0, draining_bytes: 0 });
  }
});

testOnEach("a lease outlives the server, which finds it and is told of it again", async (runtime) => {
  await using cuda = new CudaStandIn();
  await using server = await startServer({ env: cuda.env });
  const { id } = await create(server, "open");
  await using program = startProgram(
    runtime,
    server.env,
    `
      const client = await connect(patient);
      const handle = await client.attachOnDevice("open", { writable: true });
      tell(handle.id);
      await receive();
      const again = await client.attachOnDevice(handle.descriptor);
      tell([again.isWritable, again.fd !== handle.fd]);
      await receive();
      for (const thing of [handle, again, client]) thing.close();
      `,
  );
  expect(await program.hear<unknown>()).toBe(id);
  await server.crash();
  expect(await server.api.get(id)).toMatchObject({ in_use: true, has_writers: true });
  expect((await server.api.problem("POST", `/v1/regions/${id}/seal`, {})).code).toBe("region-has-writers");
  await until("it is told again", async () => (await server.api.get(id)).holders.at(0)?.client?.pid === program.pid);
  await program.say("again");
  expect(await program.hear<unknown>()).toEqual([false, true]);
  await program.say("end");
  await program.end();
  await server.api.seal(id);
});

testOnEach("what is not there to be had so is refused with what to do, and no descriptor is left", async (runtime) => {
  await using cuda = new CudaStandIn();
  await using server = await startServer({ env: cuda.env });
  const sealed = await create(server, "sealed");
  await server.api.seal(sealed.id);
  await create(server, "open");
  await server.api.create({ name: "host", byte_size: 8, persist: true });
  const program = `${counting}
      const client = await connect();
      const refusal = async (action) => {
        try {
          await action();
        } catch (error) {
          return [error.code, error.message];
        }
      };
      const without = async (path) => {
        process.env.TENSORD_BROKER_SOCKET = path;
        const elsewhere = await connect({ session: false });
        delete process.env.TENSORD_BROKER_SOCKET;
        return refusal(() => elsewhere.attachOnDevice("open"));
      };
      tell([
        await refusal(() => client.attachOnDevice("host")),
        await refusal(() => client.attach("sealed")),
        await refusal(() => client.attach(["sealed", "host"])),
        await refusal(() => client.getOrCreate("sealed", () => new Float32Array(1))),
        await refusal(() => client.attachOnDevice("sealed", { writable: true })),
        await refusal(() => client.attachOnDevice("absent")),
        await refusal(() => client.attachOnDevice("open", { timeoutMs: 1 })),
        await refusal(() => client.attachOnDevice(["open"])),
        await refusal(() => client.attachOnDevice("open", { strict: true })),
        await refusal(() => client.attachOnDevice("open", { signal: AbortSignal.abort(Object.assign(new Error("stop"), { code: "stop" })) })),
        await without("/nowhere/broker.sock"),
        countDescriptors(),
      ]);
      client.close();
    `;
  const told = await runProgram<[string, string][]>(runtime, server.env, program);
  expect(told.pop()).toBe(0 as never);
  const unmappable = ["feature-unavailable", expect.stringMatching(/storage is cuda_vmm.*\nhint: .*attachOnDevice/)];
  expect(told).toEqual([
    ["feature-unavailable", expect.stringMatching(/its storage is shm, want cuda_vmm\nhint: map it: client\.attach/)],
    ...[unmappable, unmappable, unmappable],
    ["region-sealed", expect.stringContaining("attach it without writable")],
    ["region-not-found", expect.stringContaining("absent")],
    ["region-not-sealed", expect.stringContaining("still open")],
    ["validation-failed", expect.stringContaining("a name, or a region's descriptor")],
    ["validation-failed", expect.stringContaining("it takes no strict")],
    ["stop", "stop"],
    ["wrong-namespace", expect.stringContaining("/nowhere/broker.sock")],
  ] as never);
});

testOnEach(
  "createOnDevice makes what an addon fills, owned by the session, and deletes what it cannot hold",
  async (runtime) => {
    await using cuda = new CudaStandIn({ devices: [{}, {}] });
    await using server = await startServer({ env: cuda.env });
    await using program = startProgram(
      runtime,
      server.env,
      `${counting}
    const client = await connect();
    const layout = { w: { dtype: "F32", shape: [2, 3] }, b: { dtype: "U8", shape: [8] } };
    const deviceUuid = ${JSON.stringify(standInUuid(1))};
    const made = await client.createOnDevice("made", layout, { deviceUuid, labels: { of: "test" } });
    const found = await client.createOnDevice("made", layout, { deviceUuid, ifExists: "attach" });
    tell([made, found].map(({ id, isCreated, isWritable, deviceUuid, tensors }) => [id, isCreated, isWritable, deviceUuid, [...tensors.keys()]]));
    await receive();
    for (const handle of [made, found]) handle.close();
    const [sealed] = await client.seal([made]);
    const codes = [
      await codeOf(() => client.createOnDevice("other", layout)),
      await codeOf(() => client.createOnDevice("other", new Float32Array(1), { deviceUuid })),
      await codeOf(() => client.createOnDevice("other", { w: { ...layout.b, data: new Uint8Array(8) } }, { deviceUuid })),
      await codeOf(() => client.createOnDevice("other", layout, { deviceUuid, storage: "shm" })),
      await codeOf(() => client.createOnDevice(7, layout, { deviceUuid })),
      await codeOf(() => client.createOnDevice("made", layout, { deviceUuid })),
    ];
    process.env.TENSORD_BROKER_SOCKET = "/nowhere/broker.sock";
    const elsewhere = await connect();
    codes.push(await codeOf(() => elsewhere.createOnDevice("other", layout, { deviceUuid })));
    const names = [];
    for await (const { name } of client.list()) names.push(name);
    tell({ state: sealed.state, codes, names, left: countDescriptors() });
    await receive();
    client.close();
    `,
    );
    const [made, found] = await program.hear<[string, boolean, boolean, string, string[]][]>();
    const [id = ""] = made ?? [];
    expect(made).toEqual([id, true, true, standInUuid(1), ["w", "b"]]);
    expect(found).toEqual([id, false, true, standInUuid(1), ["w", "b"]]);
    expect(await server.api.get(id)).toMatchObject({
      ...{ labels: { of: "test" }, owner: { kind: "session" }, in_use: true, has_writers: true },
    });
    await program.say("seal");
    expect(await program.hear<unknown>()).toEqual({
      state: "sealed",
      codes: [...Array.from({ length: 5 }, () => "validation-failed"), ...["name-taken", "wrong-namespace"]],
      ...{ names: ["made"], left: 0 },
    });
    await program.kill();
    await server.api.untilGone(id);
  },
);

testOnEach("what the collector finds is let go of, unless its descriptor was told", async (runtime) => {
  await using cuda = new CudaStandIn();
  await using server = await startServer({ env: cuda.env });
  await create(server, "open");
  const program = `${counting}
      const client = await connect();
      const hold = async (use) => void use(await client.attachOnDevice("open"));
      const untilLeft = async (count) => {
        while (countDescriptors() > count) {
          await collect();
          await new Promise((resolve) => setTimeout(resolve, 5));
        }
        return countDescriptors();
      };
      for (let count = 0; count < 3; count++) await hold(() => undefined);
      // The last one may still be on the stack.
      const unseen = await untilLeft(2);
      let fd;
      await hold((handle) => { fd = handle.fd; });
      await hold(() => undefined);
      await hold(() => undefined);
      await untilLeft(4);
      tell([unseen <= 2, fs.fstatSync(fd).isFile()]);
      client.close();
    `;
  expect(await runProgram<unknown>(runtime, server.env, program)).toEqual([true, true]);
});

testOnEach(
  "a thread that ends lets go of all but the descriptor that was taken, which is the addon's",
  async (runtime) => {
    await using cuda = new CudaStandIn();
    await using server = await startServer({ env: cuda.env });
    const { id } = await create(server, "open");
    const program = `${counting}
    const { Worker } = await import("node:worker_threads");
    const worker = new Worker(${JSON.stringify(thread)}, { execArgv: [] });
    const taken = await new Promise((resolve) => worker.once("message", resolve));
    await worker.terminate();
    while (countDescriptors() > 1) await new Promise((resolve) => setTimeout(resolve, 5));
    const isMemory = fs.readlinkSync("/proc/self/fd/" + taken).includes("card0/memory-");
    fs.closeSync(taken);
    tell([isMemory, countDescriptors()]);
  `;
    await using running = startProgram(runtime, server.env, program);
    expect(await running.hear<unknown>()).toEqual([true, 0]);
    await until("nobody has it", async () => !(await server.api.get(id)).in_use);
  },
);

testOnEach("a sealed region whose lease another process bars is leased by request, until close", async (runtime) => {
  await using cuda = new CudaStandIn();
  await using server = await startServer({ env: cuda.env });
  const { id } = await create(server, "barred");
  using meddler = await connect(server);
  const written = await meddler.attach(id, { access: "rw" });
  const [leaseFile = -1] = written.descriptors;
  // Of no lock that the broker took anything is left: it is no writer.
  setLock(leaseFile, "none", 0n, 0n);
  expect(trySetLock(leaseFile, "write", leaseByte, 1n)).toBeTrue();
  await server.api.seal(id);
  await using program = startProgram(
    runtime,
    server.env,
    `
    const client = await connect();
    const handle = await client.attachOnDevice("barred");
    tell(handle.fd > 2);
    await receive();
    handle.close();
    tell("closed");
    await receive();
    client.close();
    `,
  );
  expect(await program.hear<unknown>()).toBe(true);
  expect(await server.api.get(id)).toMatchObject({ lease_barred: true, leases: 1 });
  await program.say("close");
  await program.hear();
  await until("it has ended", async () => (await server.api.get(id)).leases === 0);
  meddler.letGo(written.descriptors);
});
