/** A region's life as several real processes live it: mapped, written, sealed, deleted, and outlived by its worker. */

import { afterAll, expect } from "bun:test";
import { hostOf } from "../../src/server/cli/pools.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { checkBooks, modes } from "../harness/instance-check.ts";
import { exists, readContent, writeContent } from "../harness/instance-content.ts";
import { needsPython, needsRoom, needsRoot, testWith } from "../harness/instance-needs.ts";
import { Tmpfs } from "../harness/instance-tmpfs.ts";
import { startServer } from "../harness/server.ts";
import { until } from "../harness/server-wait.ts";
import { WorkerProcess } from "../harness/worker.ts";

const MiB = 2 ** 20;
const hour = 3_600_000;
const vector = [{ name: "data", dtype: "U8" as const, shape: [4096] }];

afterAll(assertNothingLeft);

testWith(needsPython)("two processes see each other's writes through their mappings", async () => {
  await using server = await startServer();
  await using one = new WorkerProcess();
  await using other = new WorkerProcess();
  const region = await server.api.create({ name: "shared", tensors: vector, ttl_ms: hour });
  const at = region.tensors[0]?.byte_offset ?? 0;
  await one.attach("r", region, "write");
  await other.attach("r", region, "write");
  await one.write("r", at, 64, 1);
  expect(await other.read("r", at, 64)).toBe(await one.read("r", at, 64));
  await other.write("r", at, 64, 2);
  expect(await one.read("r", at, 64)).toBe(await other.read("r", at, 64));
  expect(await one.digest("r")).toBe(await other.digest("r"));
  await checkBooks(server);
});

testWith(needsPython, needsRoom(128 * MiB))(
  "64 MiB that workers write and read cost HTTP less than 64 KiB",
  async () => {
    await using server = await startServer();
    await using writer = new WorkerProcess();
    await using reader = new WorkerProcess();
    const before = (await server.api.stats()).http;
    const region = await server.api.create({ name: "big", byte_size: 64 * MiB, ttl_ms: hour });
    const at = region.tensors[0]?.byte_offset ?? 0;
    await writer.attach("r", region, "write");
    await writer.write("r", at, 64 * MiB, 7);
    await writer.detach("r");
    const sealed = await server.api.seal(region.id, { checksum: true });
    await reader.attach("r", sealed);
    expect(await reader.read("r", at, 32)).not.toBe("00".repeat(32));
    expect((await server.api.verify(region.id)).ok).toBeTrue();
    const after = (await server.api.stats()).http;
    expect(after.requests).toBeGreaterThan(before.requests);
    expect(after.received_bytes - before.received_bytes + after.sent_bytes - before.sent_bytes).toBeLessThan(65_536);
  },
);

testWith(needsPython)(
  "a seal is refused while a writer maps the region, and accepted after the writer's death",
  async () => {
    await using server = await startServer();
    await using writer = new WorkerProcess();
    await using reader = new WorkerProcess();
    const region = await server.api.create({ name: "busy", tensors: vector, ttl_ms: hour });
    await writer.attach("r", region, "write");
    await reader.attach("r", region);
    expect(await server.api.get(region.id)).toMatchObject({ in_use: true, has_writers: true });
    expect((await server.api.problem("POST", `/v1/regions/${region.id}/seal`, {})).code).toBe("region-has-writers");
    expect(await server.api.get(region.id)).toMatchObject({ state: "open", revision: 1 });
    expect(readContent(region.storage.path).mode).toBe(modes.open);
    await writer.kill();
    expect(await server.api.get(region.id)).toMatchObject({ in_use: true, has_writers: false });
    expect((await server.api.seal(region.id)).state).toBe("sealed");
    expect(readContent(region.storage.path).mode).toBe(modes.sealed);
    // Root may open what the mode forbids, and then sees that it is sealed.
    expect(await reader.tryAttach(region, "write")).toBeOneOf(["sealed", "EACCES"]);
    expect(await reader.tryAttach(region, "read")).toBeUndefined();
  },
);

testWith(needsPython, needsRoot)(
  "what a killed worker mapped has no lease, and its memory is free once deleted",
  async () => {
    using tmpfs = new Tmpfs({ sizeBytes: 192 * MiB });
    await using server = await startServer({ shmDirectory: tmpfs.path });
    const first = await server.api.create({ name: "first", byte_size: MiB, ttl_ms: hour });
    await server.api.delete(first.id);
    const idleBytes = tmpfs.usedBytes;
    await using worker = new WorkerProcess();
    const region = await server.api.create({ name: "held", byte_size: 64 * MiB, ttl_ms: hour });
    await worker.attach("r", region, "write");
    await worker.write("r", 4096, 64 * MiB, 3);
    expect(await server.api.get(region.id)).toMatchObject({ in_use: true, has_writers: true });
    await worker.kill();
    expect(await server.api.get(region.id)).toMatchObject({ in_use: false, has_writers: false });
    const deletion = await server.api.delete(region.id);
    expect(deletion).toEqual({ state: "deleted", freed_bytes: region.storage.byte_size });
    // The journal's log may have grown by a few pages meanwhile.
    expect(tmpfs.usedBytes - idleBytes).toBeLessThan(MiB);
    expect(hostOf(await server.api.stats())).toMatchObject({ used_bytes: 0, draining_bytes: 0 });
  },
);

testWith(needsPython, needsRoot)(
  "a region deleted while mapped drains: its worker reads on, and the memory goes with it",
  async () => {
    using tmpfs = new Tmpfs({ sizeBytes: 192 * MiB });
    await using server = await startServer({ shmDirectory: tmpfs.path });
    await using worker = new WorkerProcess();
    const region = await server.api.create({ name: "drained", byte_size: 64 * MiB, ttl_ms: hour });
    writeContent(region, 11);
    await worker.attach("r", await server.api.seal(region.id));
    const digest = await worker.digest("r");
    expect(await server.api.delete(region.id)).toEqual({ state: "draining", freed_bytes: 0 });
    expect(exists(region.storage.path)).toBeFalse();
    expect(await server.api.findByName("drained")).toBeUndefined();
    const draining = await server.api.get(region.id);
    expect(draining).toMatchObject({ state: "draining", name: null, in_use: true });
    expect(draining.drain).toEqual({ reason: "request", waits_for: "lease" });
    expect(await server.api.delete(region.id)).toEqual({ state: "draining", freed_bytes: 0 });
    // The name is free at once, for other bytes.
    const next = await server.api.create({ name: "drained", tensors: vector, ttl_ms: hour });
    expect(next.storage.ino).not.toBe(region.storage.ino);
    expect(await worker.digest("r")).toBe(digest);
    expect(tmpfs.usedBytes).toBeGreaterThan(64 * MiB);
    await checkBooks(server);
    await worker.kill();
    await server.api.untilGone(region.id);
    expect(tmpfs.usedBytes).toBeLessThan(8 * MiB);
    await checkBooks(server);
  },
);

testWith(needsPython)("a lease ends with the mapping, without any request", async () => {
  await using server = await startServer();
  await using worker = new WorkerProcess();
  const region = await server.api.create({ name: "leased", tensors: vector, ttl_ms: hour });
  const { requests } = (await server.api.stats()).http;
  await worker.attach("r", region);
  expect((await server.api.get(region.id)).in_use).toBeTrue();
  await worker.detach("r");
  expect((await server.api.get(region.id)).in_use).toBeFalse();
  expect((await server.api.stats()).http.requests - requests).toBe(3);
});

testWith(needsPython)(
  "a TTL that ends takes an unmapped region, and waits for one that is sealed and mapped",
  async () => {
    await using server = await startServer();
    await using worker = new WorkerProcess();
    const mapped = await server.api.create({ name: "mapped", tensors: vector, ttl_ms: hour });
    const idle = await server.api.create({ name: "idle", tensors: vector, ttl_ms: hour });
    await worker.attach("r", await server.api.seal(mapped.id));
    for (const { id } of [mapped, idle]) await server.api.call("PATCH", `/v1/regions/${id}`, { ttl_ms: 1 });
    await server.api.untilGone(idle.id);
    expect(await server.api.findByName("mapped")).toMatchObject({ id: mapped.id, state: "sealed", in_use: true });
    await worker.kill();
    await server.api.untilGone(mapped.id);
  },
);

testWith()("a restart keeps what was acknowledged and raises the epoch", async () => {
  await using server = await startServer();
  const region = await server.api.create({ name: "kept", tensors: vector, persist: true, labels: { job: "a" } });
  writeContent(region, 5);
  await server.api.seal(region.id, { checksum: true });
  const before = { content: readContent(region.storage.path), region: await server.api.get(region.id) };
  const { epoch } = await server.api.stats();
  await server.stop();
  expect(exists(server.instance.socket)).toBeFalse();
  await server.start();
  const after = await server.api.get(region.id);
  expect({ ...after, last_used_at: "" }).toEqual({ ...before.region, last_used_at: "" });
  expect(readContent(region.storage.path)).toEqual(before.content);
  expect((await server.api.verify(region.id)).ok).toBeTrue();
  expect((await server.api.stats()).epoch).toBeGreaterThan(epoch);
  await checkBooks(server);
});

testWith(needsPython)(
  "a TTL that ends while no server runs takes effect at the start, but for who still maps it",
  async () => {
    await using server = await startServer();
    await using worker = new WorkerProcess();
    const idle = await server.api.create({ name: "idle", tensors: vector, ttl_ms: hour });
    const mapped = await server.api.create({ name: "mapped", tensors: vector, ttl_ms: hour });
    await worker.attach("r", await server.api.seal(mapped.id));
    for (const { id } of [idle, mapped]) await server.api.call("PATCH", `/v1/regions/${id}`, { ttl_ms: 500 });
    const { expires_at } = await server.api.get(idle.id);
    await server.kill("SIGKILL");
    await until("the time is over", () => Date.now() > Date.parse(expires_at ?? ""));
    await server.start();
    await server.api.untilGone(idle.id);
    expect(await server.api.findByName("mapped")).toMatchObject({ id: mapped.id, state: "sealed", in_use: true });
    await worker.kill();
    await server.api.untilGone(mapped.id);
    await checkBooks(server);
  },
);

testWith()("SIGTERM lets a request that waits answer, and exits with 0", async () => {
  await using server = await startServer();
  const { requests } = (await server.api.stats()).http;
  const response = fetch("http://localhost/v1/models/default/regions/never", {
    unix: server.instance.socket,
    headers: { prefer: "wait=60" },
  });
  let own = 0;
  await until("the request waits", async () => {
    own += 1;
    return (await server.api.stats()).http.requests > requests + own;
  });
  await server.stop();
  expect((await response).status).toBe(503);
});
