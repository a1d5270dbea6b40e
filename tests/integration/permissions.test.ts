/** Who may do what, as the kernel sees it: workers and servers under uids that are not root's. */

import { afterAll, expect } from "bun:test";
import { lstatSync } from "node:fs";
import { checkBooks, modes } from "../harness/instance-check.ts";
import { exists, readContent } from "../harness/instance-content.ts";
import { needsPython, needsReadableCheckout, needsRoot, testWith } from "../harness/instance-needs.ts";
import { Tmpfs } from "../harness/instance-tmpfs.ts";
import { endLentServers, lendServer } from "../harness/lent-server.ts";
import { startServer } from "../harness/server.ts";
import { runTensord } from "../harness/server-command.ts";
import { WorkerProcess } from "../harness/worker.ts";

const MiB = 2 ** 20;
const hour = 3_600_000;
const nobody = 65534;
const asNobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
const vector = [{ name: "data", dtype: "U8" as const, shape: [4096] }];

afterAll(endLentServers);

testWith(needsPython, needsRoot)(
  "a worker of another uid maps, writes and drains a region if it is in the server's group",
  async () => {
    await using server = await lendServer();
    await using worker = new WorkerProcess({ uid: nobody, gid: process.getgid?.() ?? 0 });
    const region = await server.api.create({ name: "grouped", tensors: vector, ttl_ms: hour });
    const { mode, gid } = lstatSync(region.storage.path);
    expect([mode & 0o7777, gid]).toEqual([modes.open, process.getgid?.() ?? 0]);
    await worker.attach("w", region, "write");
    await worker.write("w", 4096, 4096, 1);
    await worker.detach("w");
    const sealed = await server.api.seal(region.id, { checksum: true });
    await worker.attach("r", sealed);
    expect((await server.api.get(region.id)).in_use).toBeTrue();
    expect((await server.api.delete(region.id)).state).toBe("draining");
    await worker.detach("r");
    await server.api.untilGone(region.id);
  },
);

testWith(needsPython, needsRoot)(
  "a worker outside of the server's group is refused, open and sealed regions alike",
  async () => {
    await using server = await lendServer();
    await using stranger = new WorkerProcess({ uid: nobody, gid: nobody });
    const region = await server.api.create({ name: "strange", tensors: vector, ttl_ms: hour });
    for (const path of [region.storage.path, server.instance.socket]) {
      expect(await stranger.open(path, "read")).toBe("EACCES");
      expect(await stranger.open(path, "write")).toBe("EACCES");
    }
    await server.api.seal(region.id, { stock_writable: true });
    expect(await stranger.open(region.storage.path, "read")).toBe("EACCES");
    expect(await stranger.list(server.instance.directory)).toBe("EACCES");
  },
);

testWith(needsPython, needsRoot)(
  "a sealed region cannot be opened for writing by the group, unless it is stock_writable",
  async () => {
    await using server = await lendServer();
    await using member = new WorkerProcess({ uid: nobody, gid: process.getgid?.() ?? 0 });
    const strict = await server.api.create({ name: "strict", tensors: vector, ttl_ms: hour });
    const stock = await server.api.create({ name: "stock", tensors: vector, ttl_ms: hour });
    expect(await member.open(strict.storage.path, "write")).toBe("ok");
    await server.api.seal(strict.id);
    await server.api.seal(stock.id, { stock_writable: true });
    expect(await member.open(strict.storage.path, "write")).toBe("EACCES");
    expect(await member.open(strict.storage.path, "read")).toBe("ok");
    expect(await member.open(stock.storage.path, "write")).toBe("ok");
    expect(readContent(strict.storage.path).mode).toBe(modes.sealed);
    expect(readContent(stock.storage.path).mode).toBe(modes.stockWritable);
    // The protocol refuses what the mode of a stock_writable region would let through.
    expect(await member.tryAttach(stock, "write")).toBe("sealed");
  },
);

testWith(needsPython, needsRoot)("the folders that prove ownership can be listed by nobody else", async () => {
  await using server = await lendServer();
  await using member = new WorkerProcess({ uid: nobody, gid: process.getgid?.() ?? 0 });
  const { instance } = server;
  expect(await member.list(instance.directory)).toBe("ok");
  for (const folder of [instance.keep, instance.new, instance.store]) {
    expect(await member.list(folder), folder).toBe("EACCES");
    expect(lstatSync(folder).mode & 0o7777, folder).toBe(0o700);
  }
  expect(lstatSync(instance.directory).mode & 0o7777).toBe(0o750);
  expect(lstatSync(instance.socket).mode & 0o777).toBe(0o660);
});

testWith(needsPython, needsReadableCheckout())("the whole life works under a server that is not root", async () => {
  using tmpfs = new Tmpfs({ sizeBytes: 64 * MiB });
  await using server = await startServer({ shmDirectory: tmpfs.path, uid: nobody });
  server.log.expect(/^tensord\.region\.relinked$/);
  await using worker = new WorkerProcess({ uid: 65533, gid: nobody });
  const region = await server.api.create({ name: "first", byte_size: 2 * MiB, persist: true });
  expect(region.storage.shm_name).toBeNull();
  expect(lstatSync(region.storage.path).uid).toBe(nobody);
  await worker.attach("w", region, "write");
  await worker.write("w", 4096, 2 * MiB, 1);
  expect((await server.api.problem("POST", `/v1/regions/${region.id}/seal`, {})).code).toBe("region-has-writers");
  await worker.detach("w");
  await server.api.seal(region.id, { checksum: true });
  expect(await worker.open(region.storage.path, "write")).toBe("EACCES");
  const before = readContent(region.storage.path);
  await server.crash();
  expect(readContent(region.storage.path)).toEqual(before);
  expect((await server.api.verify(region.id)).ok).toBeTrue();
  const next = await server.api.create({ name: "first", byte_size: MiB, persist: true, if_exists: "replace" });
  await server.api.seal(next.id);
  expect(await server.api.findByName("first")).toMatchObject({ id: next.id });
  await server.api.untilGone(region.id);
  expect((await server.api.delete(next.id)).state).toBe("deleted");
  await checkBooks(server);
});

testWith(needsReadableCheckout())(
  "a directory that another user made under the instance's name is refused",
  async () => {
    using tmpfs = new Tmpfs({ sizeBytes: 64 * MiB });
    await using server = await startServer({ shmDirectory: tmpfs.path });
    await server.stop();
    const { status, stderr } = await runTensord(["serve"], server.env, asNobody);
    expect(status).toBe(1);
    expect(stderr).toMatch(/^tensord: Cannot (open|use) .+\nhint: .+\n$/);
    expect(stderr).toContain("elongs to uid 0");
    expect(stderr).toContain(server.instance.directory);
    expect(exists(server.instance.keep)).toBeTrue();
  },
);

testWith(needsRoot)(
  "a server that was made nicer than its threads, and may not raise a priority, allocates",
  async () => {
    const prefix = ["nice", "-n", "15", "setpriv", "--inh-caps=-sys_nice", "--bounding-set=-sys_nice"];
    await using server = await startServer({ prefix });
    expect((await server.api.create({ name: "large", byte_size: 2 * MiB, ttl_ms: hour })).state).toBe("open");
    const { stdout } = await server.command("doctor", "--json");
    expect(stdout).toContain(`answers, pid ${server.pid}`);
  },
);
