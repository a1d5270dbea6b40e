/**
 * A driver that fails, crashes, is killed or hangs at each call that the server makes of it, and the server killed at each step. On the stand-in driver:
 * it shows what is undone, and nothing about a GPU.
 */

import { afterAll, expect } from "bun:test";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { CudaStandIn, needsStandIn, standInUuid } from "../harness/cuda-stand-in.ts";
import {
  connect,
  type DeviceBooks,
  holderOf,
  lookAtHolder,
  readBooks,
  untilAsBefore,
} from "../harness/device-server.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { testWith } from "../harness/instance-needs.ts";
import { openBelow } from "../harness/open-files.ts";
import { type KillPoint, startServer, TestServer } from "../harness/server.ts";
import { NoAnswer, type Region } from "../harness/server-api.ts";
import { until } from "../harness/server-wait.ts";
import { at, deleting } from "./scenario.ts";

afterAll(assertNothingLeft);

const testOnStandIn = testWith(needsStandIn);
const MiB = 2 ** 20;
const device = standInUuid(0);
const unknown = 999;
const outOfMemory = 2;

function create(server: TestServer, name: string): Promise<Region> {
  const onDevice = { storage: "cuda_vmm", device_uuid: device };
  return server.api.create({ name, ...onDevice, byte_size: 3 * MiB, persist: true } as never);
}

const failure = (work: Promise<unknown>): Promise<Error | undefined> =>
  work.then(
    () => undefined,
    (error: Error) => error,
  );

const warnings = [/^Cannot free /, /^Cannot remove what was left of /];

testOnStandIn(
  "a driver that fails at a call fails that request alone, in its own words, and nothing of it is left",
  async () => {
    await using cuda = new CudaStandIn();
    await using server = await startServer({ env: cuda.env });
    server.log.expect(...warnings);
    const kept = await create(server, "kept");
    using client = await connect(server);
    const before = await readBooks(server, cuda);
    for (const [order, code, words] of [
      [`cuMemCreate 1 ${outOfMemory}`, "out-of-device-memory", "CUDA_ERROR_OUT_OF_MEMORY"],
      [`cuMemCreate 1 ${unknown}`, "io-error", "CUDA_ERROR_UNKNOWN"],
      [`cuMemExportToShareableHandle 1 ${unknown}`, "io-error", "CUDA_ERROR_UNKNOWN"],
    ] as const) {
      cuda.order(order);
      const error = await failure(create(server, "new"));
      expect(error?.message, order).toContain(code);
      expect(error?.message, order).toContain(words);
      await untilAsBefore(server, cuda, before);
    }
    cuda.order(`cuMemExportToShareableHandle 1 ${unknown}`);
    const problem = await client.problem("attach", { region: kept.id, access: "ro" });
    expect(problem).toMatchObject({ code: "io-error", detail: expect.stringContaining("CUDA_ERROR_UNKNOWN") });
    await untilAsBefore(server, cuda, before);
    const attached = await client.attach(kept.id);
    client.letGo(attached.descriptors);
    // Freed at the second try, and not told to be before.
    const doomed = await create(server, "doomed");
    cuda.order(`cuMemRelease 1 ${unknown}`);
    expect(await server.api.delete(doomed.id)).toMatchObject({ state: "draining" });
    await server.api.untilGone(doomed.id);
    await untilAsBefore(server, cuda, before);
    // What a creation could not give back is given back before the next.
    cuda.order(`cuMemExportToShareableHandle 1 ${unknown}`, `cuMemRelease 1 ${unknown}`);
    expect((await failure(create(server, "new")))?.message).toContain("io-error");
    const next = await create(server, "next");
    await server.api.delete(next.id);
    await untilAsBefore(server, cuda, before);
  },
);

testOnStandIn("a driver that hangs holds up who waits for it alone, and what it does late is undone", async () => {
  await using cuda = new CudaStandIn();
  // In place of a time that a busy machine could not keep.
  const over = join(cuda.folder, "over");
  await using server = await startServer({ env: { ...cuda.env, TEST_GIVE_UP_FILE: over }, isStepped: true });
  server.log.expect(...warnings);
  /** Begins what hangs at `call`, and goes on once it does. A promise that was returned would be waited for. */
  const hold = async <Value>(call: string, ask: () => Promise<Value>): Promise<{ readonly work: Promise<Value> }> => {
    const before = cuda.countOrdered(call);
    cuda.order(`${call} 1 hold`);
    const work = ask();
    await until("the call hangs", () => cuda.countOrdered(call) > before);
    return { work };
  };
  const letGo = () => {
    rmSync(over, { force: true });
    cuda.order("none 1 0");
  };
  const kept = await create(server, "kept");
  const before = await readBooks(server, cuda);
  for (const call of ["cuMemCreate", "cuMemExportToShareableHandle"]) {
    let isAnswered = false;
    const { work } = await hold(call, () => failure(create(server, "late")));
    void work.finally(() => {
      isAnswered = true;
    });
    // Others are answered meanwhile.
    const shm = await server.api.create({ byte_size: 4096, ttl_ms: 60_000 });
    await server.api.delete(shm.id);
    expect(isAnswered).toBeFalse();
    writeFileSync(over, "");
    expect((await work)?.message).toContain("deadline-exceeded");
    letGo();
    await untilAsBefore(server, cuda, before);
  }
  {
    using client = await connect(server);
    const connected = await readBooks(server, cuda);
    const { work } = await hold("cuMemExportToShareableHandle", () =>
      client.problem("attach", { region: kept.id, access: "ro" }),
    );
    writeFileSync(over, "");
    expect((await work).code).toBe("deadline-exceeded");
    letGo();
    await untilAsBefore(server, cuda, connected);
    // Its peer is gone before the driver answers.
    await hold("cuMemExportToShareableHandle", async () => {
      client.send(JSON.stringify({ id: 99, op: "attach", region: kept.id, access: "ro" }));
    });
  }
  letGo();
  await untilAsBefore(server, cuda, before);
  const doomed = await create(server, "doomed");
  const releases = () => cuda.calls("cuMemRelease").length;
  const released = releases();
  const { work } = await hold("cuMemRelease", () => server.api.delete(doomed.id));
  writeFileSync(over, "");
  expect(await work).toMatchObject({ state: "draining" });
  letGo();
  await server.api.untilGone(doomed.id);
  expect(releases() - released, "the driver is told once").toBe(1);
  await untilAsBefore(server, cuda, before);
});

testOnStandIn("who waits for a driver is answered when the time for it is over", async () => {
  await using cuda = new CudaStandIn();
  const env = { ...cuda.env, TEST_DRIVER_ANSWER_MS: "100" };
  await using server = await startServer({ env, isStepped: true });
  server.log.expect(...warnings, /^The CUDA driver has not answered for 100 ms/);
  const before = await readBooks(server, cuda);
  cuda.order("cuMemCreate 1 hold");
  expect((await failure(create(server, "late")))?.message).toContain("has not answered for 100 ms");
  cuda.order("none 1 0");
  await untilAsBefore(server, cuda, before);
});

/** What the books are once the server is back. */
async function afterCrash(server: TestServer, cuda: CudaStandIn, before: DeviceBooks, call: string): Promise<void> {
  cuda.order("none 1 0");
  expect(await server.exited(), call).toBeOneOf(["SIGKILL", "SIGSEGV", "SIGILL", "SIGTRAP", "SIGABRT"]);
  if (call.endsWith("crash")) {
    // The runtime's own words.
    expect(server.log.errors).toContain("Segmentation fault");
    server.log.errors = "";
  }
  await server.start();
  await untilAsBefore(server, cuda, before);
}

testOnStandIn("a driver that kills or crashes the server at a call leaves nothing of that request behind", async () => {
  await using cuda = new CudaStandIn();
  await using server = new TestServer({ env: cuda.env });
  await server.start();
  const kept = await create(server, "kept");
  const before = await readBooks(server, cuda);
  for (const [call, action] of [
    ["cuMemCreate", "kill"],
    ["cuMemCreate", "after kill"],
    ["cuMemExportToShareableHandle", "crash"],
    ["cuMemExportToShareableHandle", "after kill"],
  ] as const) {
    cuda.order(`${call} 1 ${action}`);
    await expect(create(server, "new")).rejects.toThrow(NoAnswer);
    await afterCrash(server, cuda, before, `${call} ${action}`);
  }
  const doomed = await create(server, "doomed");
  cuda.order("cuMemRelease 1 kill");
  await expect(server.api.delete(doomed.id)).rejects.toThrow(NoAnswer);
  await afterCrash(server, cuda, before, "cuMemRelease");
  expect(await server.api.get(kept.id)).toMatchObject({ state: "open" });
});

testOnStandIn(
  "the server killed at each step of a creation, an attach and a deletion leaves the whole or nothing",
  async () => {
    await using cuda = new CudaStandIn();
    await using server = await startServer({ env: cuda.env, isStepped: true });
    const kept = await create(server, "kept");
    const before = await readBooks(server, cuda);
    const creating = [
      ...at("create.reserved", "create.file-made", "create.window-allocated", "create.header-written"),
      { step: "holder.kept", count: 1 },
      { step: "holder.kept", count: 2 },
      ...at("create.kept", "create.journaled"),
    ] as const satisfies readonly KillPoint[];
    for (const kill of creating) {
      server.killAfter(kill);
      await failure(create(server, "new"));
      expect(await server.exited(), kill.step).toBe("SIGKILL");
      await server.start();
      // Whole, where its row stood already.
      for (const { id, name } of await server.api.list()) if (name === "new") await server.api.delete(id);
      await untilAsBefore(server, cuda, before);
    }
    for (const kill of at("hand-out.opened", "hand-out.locked", "hand-out.exported", "hand-out.sent")) {
      using client = await connect(server);
      server.killAfter(kill);
      client.send(JSON.stringify({ id: 1, op: "attach", region: kept.id, access: "ro" }));
      expect(await server.exited(), kill.step).toBe("SIGKILL");
      client.close();
      await server.start();
      await untilAsBefore(server, cuda, before);
    }
    for (const kill of [
      ...deleting,
      { step: "holder.dropped", count: 1 },
      { step: "holder.dropped", count: 2 },
    ] as const) {
      const { id } = await create(server, "doomed");
      server.killAfter(kill);
      await failure(server.api.delete(id));
      expect(await server.exited(), kill.step).toBe("SIGKILL");
      await server.start();
      await server.api.untilGone(id);
      await untilAsBefore(server, cuda, before);
    }
  },
);

testOnStandIn(
  "an fd holder killed at each step of a creation, an attach and a deletion is replaced, and nothing is lost",
  async () => {
    await using cuda = new CudaStandIn();
    await using server = await startServer({ env: cuda.env, isStepped: true });
    server.log.expect(/^The fd holder, process \d+, ended; a new one is started for \d descriptors$/);
    await create(server, "kept");
    const before = await readBooks(server, cuda);
    const steps = [
      ...at("create.reserved", "create.file-made", "create.window-allocated", "create.header-written"),
      { step: "holder.kept", count: 1 },
      { step: "holder.kept", count: 2 },
      ...at(
        "create.kept",
        "create.journaled",
        "hand-out.opened",
        "hand-out.locked",
        "hand-out.exported",
        "hand-out.sent",
      ),
      ...deleting,
      { step: "holder.dropped", count: 1 },
      { step: "holder.dropped", count: 2 },
    ] as const satisfies readonly KillPoint[];
    for (const kill of steps) {
      const pid = await holderOf(server);
      server.killAfter({ ...kill, pid });
      const { id } = await create(server, "new");
      using client = await connect(server);
      const attached = await client.attach(id);
      client.letGo(attached.descriptors);
      client.close();
      await server.api.delete(id);
      await server.api.untilGone(id);
      server.killAfter(undefined);
      await until(`another fd holder is there, after ${kill.step}`, async () => (await holderOf(server)) !== pid);
      await untilAsBefore(server, cuda, before);
    }
    // What the last one was given keeps everything over a crash, too.
    await server.crash();
    await untilAsBefore(server, cuda, before);
  },
);

testOnStandIn(
  "the fd holder keeps a device's node open from its first region to its last, over a crash too",
  async () => {
    await using cuda = new CudaStandIn();
    const node = join(cuda.folder, "nvidia0");
    writeFileSync(node, "");
    const env = { ...cuda.env, TEST_DEVICE_NODE: node };
    await using server = await startServer({ env, isStepped: true });
    const isKept = async () => {
      return openBelow(node, await holderOf(server)).length > 0;
    };
    const first = await create(server, "first");
    const second = await create(server, "second");
    expect(await isKept()).toBeTrue();
    expect(await lookAtHolder(server)).toContain("keeps 5 descriptors");
    await server.crash();
    await server.api.delete(first.id);
    expect(await isKept()).toBeTrue();
    await server.api.delete(second.id);
    await until("nothing is kept", async () => !(await isKept()));
    const third = await create(server, "third");
    expect(await isKept()).toBeTrue();
    await server.api.delete(third.id);
  },
);
