/** A tmpfs without room: answers with numbers, nothing left behind, nobody killed, and a way out by deleting. */

import { afterAll, expect } from "bun:test";
import { linkSync, readdirSync, statSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { limits } from "../../src/memory/limits.ts";
import type { Step } from "../../src/memory/state/steps.ts";
import { hostOf } from "../../src/server/cli/pools.ts";
import { withApp } from "../harness/app.ts";
import { assertNothingLeft, tokenOf } from "../harness/instance.ts";
import { checkBooks } from "../harness/instance-check.ts";
import { exists, readContent, writeContent } from "../harness/instance-content.ts";
import { needsPython, needsRoot, testWith } from "../harness/instance-needs.ts";
import { Tmpfs } from "../harness/instance-tmpfs.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import type { Deletion, Region } from "../harness/server-api.ts";
import { until } from "../harness/server-wait.ts";
import { WorkerProcess } from "../harness/worker.ts";

const MiB = 2 ** 20;
const hour = 3_600_000;
/** A server that stops without a free page cannot keep its events; those who resume are told of a gap. */
const noEvents = /^Cannot keep the events /;

afterAll(assertNothingLeft);

/** Bytes of pages that the ballast holds. */
function ballastBytes({ instance }: TestServer): number {
  return (statSync(join(instance.store, "ballast"), { throwIfNoEntry: false })?.blocks ?? 0) * 512;
}

function makeRegions({ api }: TestServer, count: number, byte_size = 20_000): Promise<Region[]> {
  return Promise.all(
    Array.from({ length: count }, (_, at) => api.create({ name: `r${at}`, byte_size, persist: true })),
  );
}

testWith(needsPython, needsRoot)(
  "a file system that others filled answers 507 with the numbers, and leaves nothing behind",
  async () => {
    using tmpfs = new Tmpfs({ sizeBytes: 32 * MiB });
    await using server = await startServer({ shmDirectory: tmpfs.path });
    await using worker = new WorkerProcess();
    const mapped = await server.api.create({ name: "mapped", byte_size: 2 * MiB, ttl_ms: hour });
    await worker.attach("r", mapped, "write");
    const foreign = tmpfs.occupy("foreign", 22 * MiB);
    const before = tmpfs.freeBytes;
    for (const byteSize of [10 * MiB, before + 1]) {
      const problem = await server.api.problem("POST", "/v1/regions", {
        name: "x",
        byte_size: byteSize,
        ttl_ms: hour,
      });
      expect(problem).toMatchObject({ status: 507, code: "out-of-shared-memory", errno: "ENOSPC" });
      expect(problem.requested_bytes).toBeGreaterThanOrEqual(byteSize);
      expect(problem.available_bytes).toBe(before);
      expect(problem.hint).toContain("foreign files");
    }
    expect(tmpfs.freeBytes).toBe(before);
    expect(readdirSync(server.instance.new)).toEqual([]);
    // The worker's pages were allocated when its region was made: touching them on a full file system kills nobody.
    tmpfs.fill("filler");
    await worker.write("r", 4096, 2 * MiB, 1);
    expect(hostOf(await server.api.stats()).available_bytes).toBe(0);
    for (const name of ["filler", "foreign"]) unlinkSync(join(tmpfs.path, name));
    expect(exists(foreign)).toBeFalse();
    expect((await server.api.create({ name: "x", byte_size: 10 * MiB, ttl_ms: hour })).state).toBe("open");
    await checkBooks(server);
  },
);

testWith(needsRoot)("a file system that fills up during an allocation undoes it whole", async () => {
  using tmpfs = new Tmpfs({ sizeBytes: 256 * MiB });
  await using server = await startServer({ shmDirectory: tmpfs.path });
  server.log.expect(noEvents);
  // Races its windows: whoever is first, the answer is whole or a 507.
  const answers = Array.from({ length: 8 }, (_, at) =>
    server.api.request<Region>("POST", "/v1/regions", { name: `r${at}`, byte_size: 100 * MiB, ttl_ms: hour }),
  );
  tmpfs.fill();
  const statuses = (await Promise.all(answers)).map(({ status }) => status);
  for (const status of statuses) expect(status).toBeOneOf([201, 507]);
  expect(statuses).toContain(507);
  expect(readdirSync(server.instance.new)).toEqual([]);
  await checkBooks(server);
});

testWith(needsRoot)("an allocation takes no window more once others have left too little for the rest", async () => {
  using tmpfs = new Tmpfs({ sizeBytes: 128 * MiB });
  let windows = 0;
  const onStep = (step: Step) => {
    if (step !== "create.window-allocated") return;
    windows += 1;
    if (windows === 1) tmpfs.occupy("foreign", tmpfs.freeBytes - limits.allocateWindowBytes - MiB);
  };
  await withApp(
    async (app) => {
      const body = { byte_size: 4 * limits.allocateWindowBytes, ttl_ms: hour };
      await app.refused("out-of-shared-memory", "POST", "/v1/regions", body);
      expect(windows).toBe(1);
      unlinkSync(join(tmpfs.path, "foreign"));
    },
    { shmDirectory: tmpfs.path, onStep },
  )();
});

testWith(needsPython, needsRoot)(
  "DELETE works with not a page free, by the ballast, which is written again when there is room",
  async () => {
    using tmpfs = new Tmpfs({ sizeBytes: 32 * MiB });
    await using server = await startServer({ shmDirectory: tmpfs.path });
    await using worker = new WorkerProcess();
    const regions = await makeRegions(server, 12);
    for (const [at, region] of regions.slice(0, 6).entries()) await worker.attach(`r${at}`, region);
    expect(ballastBytes(server)).toBe(MiB);
    tmpfs.fill();
    expect(tmpfs.freeBytes).toBe(0);
    const refused = await server.api.problem("POST", "/v1/regions", { byte_size: 1, ttl_ms: hour });
    expect(refused).toMatchObject({ status: 507, code: "out-of-shared-memory" });
    // What is mapped frees no page when it goes, so only the ballast can pay for its row.
    for (const { id } of regions.slice(0, 6)) expect((await server.api.delete(id)).state).toBe("draining");
    expect(ballastBytes(server)).toBeLessThan(MiB);
    for (const { id } of regions.slice(6, 11)) expect((await server.api.delete(id)).state).toBe("deleted");
    await worker.kill();
    for (const { id } of regions.slice(0, 6)) await server.api.untilGone(id);
    unlinkSync(join(tmpfs.path, "foreign"));
    expect((await server.api.delete(regions[11]?.id ?? "")).state).toBe("deleted");
    expect(ballastBytes(server)).toBe(MiB);
    await checkBooks(server);
  },
);

testWith(needsPython, needsRoot)(
  "a server that is killed on a full file system starts there again, and deletes",
  async () => {
    using tmpfs = new Tmpfs({ sizeBytes: 32 * MiB });
    await using server = await startServer({ shmDirectory: tmpfs.path });
    await using worker = new WorkerProcess();
    const regions = await makeRegions(server, 6);
    for (const [at, region] of regions.entries()) writeContent(region, at);
    const contents = regions.map(({ storage }) => readContent(storage.path));
    await worker.attach("r", regions[0] as Region);
    tmpfs.fill();
    await server.crash();
    expect(regions.map(({ storage }) => readContent(storage.path))).toEqual(contents);
    expect((await server.api.delete(regions[0]?.id ?? "")).state).toBe("draining");
    for (const { id } of regions.slice(1, 5)) expect((await server.api.delete(id)).state).toBe("deleted");
    await worker.kill();
    await server.api.untilGone(regions[0]?.id ?? "");
    await server.stop();
    unlinkSync(join(tmpfs.path, "foreign"));
    await server.start();
    expect((await server.api.list()).map(({ id }) => id)).toEqual([regions[5]?.id ?? ""]);
    expect(readContent(regions[5]?.storage.path ?? "")).toEqual(contents[5] as (typeof contents)[0]);
    expect(ballastBytes(server)).toBe(MiB);
    await checkBooks(server);
  },
);

testWith(needsRoot)(
  "a neighbour that takes each page as it comes free keeps nobody from deleting, nor the server from starting",
  async () => {
    using tmpfs = new Tmpfs({ sizeBytes: 32 * MiB });
    await using server = await startServer({ shmDirectory: tmpfs.path });
    server.log.expect(/no free page/);
    const regions = await makeRegions(server, 6);
    for (const { id } of regions.slice(0, 3)) {
      tmpfs.fill();
      expect((await server.api.delete(id)).state).toBe("deleted");
    }
    tmpfs.fill();
    await server.crash();
    tmpfs.fill();
    for (const { id } of regions.slice(3)) expect((await server.api.delete(id)).state).toBe("deleted");
    await checkBooks(server);
  },
);

testWith(needsPython, needsRoot)(
  "a DELETE that was acknowledged without a page for its row holds, once there is room and over a crash",
  async () => {
    using tmpfs = new Tmpfs({ sizeBytes: 32 * MiB });
    await using server = await startServer({ shmDirectory: tmpfs.path });
    server.log.expect(/no free page/, /^Cannot free /);
    await using worker = new WorkerProcess();
    const [linked, ...mapped] = (await makeRegions(server, 40)) as [Region, ...Region[]];
    for (const [at, region] of mapped.entries()) await worker.attach(`r${at}`, region);
    const other = join(tmpfs.path, "linked-elsewhere");
    linkSync(linked.storage.path, other);
    // A neighbour takes each page that the ballast gives up, until nothing of it is left.
    for (const { id } of mapped) {
      tmpfs.fill();
      const { status } = await server.api.request("DELETE", `/v1/regions/${id}`);
      if (status !== 200) break;
    }
    expect([ballastBytes(server), tmpfs.freeBytes]).toEqual([0, 0]);
    const { status, body } = await server.api.request<Deletion>("DELETE", `/v1/regions/${linked.id}`);
    expect(status).toBeOneOf([200, 507]);
    unlinkSync(join(tmpfs.path, "foreign"));
    if (status === 507) expect((await server.api.delete(linked.id)).state).toBe("draining");
    else expect(body.state).toBe("draining");
    // The name is free, and stays the new holder's.
    const next = await server.api.create({ name: "r0", byte_size: 1, persist: true });
    await server.crash();
    expect((await server.api.findByName("r0"))?.id).toBe(next.id);
    expect(await server.api.get(linked.id)).toMatchObject({ state: "draining", name: null });
    unlinkSync(other);
    await server.api.untilGone(linked.id);
    await worker.kill();
    await until("all that was mapped is freed", async () => (await server.api.stats()).regions.draining === 0);
    await checkBooks(server);
  },
);

testWith(needsRoot)("an orderly stop and start on a full file system loses nothing", async () => {
  using tmpfs = new Tmpfs({ sizeBytes: 32 * MiB });
  await using server = await startServer({ shmDirectory: tmpfs.path });
  server.log.expect(noEvents);
  const regions = await makeRegions(server, 4);
  tmpfs.fill();
  await server.stop();
  tmpfs.fill();
  await server.start();
  expect((await server.api.list()).map(({ id }) => id)).toEqual(regions.map(({ id }) => id));
  for (const { id } of regions) expect((await server.api.delete(id)).state).toBe("deleted");
  unlinkSync(join(tmpfs.path, "foreign"));
  await checkBooks(server);
});

testWith(needsRoot)(
  "a file system without inodes answers out-of-inodes, deletes, and leaves nothing half made",
  async () => {
    using tmpfs = new Tmpfs({ sizeBytes: 64 * MiB, inodes: 100 });
    await using server = await startServer({ shmDirectory: tmpfs.path });
    const regions = await makeRegions(server, 3);
    const giveBack = tmpfs.fillInodes();
    expect(tmpfs.freeInodes).toBe(0);
    const refused = await server.api.problem("POST", "/v1/regions", { name: "x", byte_size: 1, ttl_ms: hour });
    expect(refused).toMatchObject({ status: 507, code: "out-of-inodes" });
    expect(refused.hint).toContain("nr_inodes");
    for (const { id } of regions.slice(0, 2)) expect((await server.api.delete(id)).state).toBe("deleted");
    await checkBooks(server, []);
    giveBack();
    expect((await server.api.create({ name: "x", byte_size: 1, ttl_ms: hour })).state).toBe("open");
    await checkBooks(server);
  },
);

testWith(needsRoot)("one inode, enough for a file and not for its name, is refused like none", async () => {
  using tmpfs = new Tmpfs({ sizeBytes: 64 * MiB, inodes: 100 });
  await using server = await startServer({ shmDirectory: tmpfs.path });
  const [region] = await makeRegions(server, 1);
  const giveBack = tmpfs.fillInodes();
  unlinkSync(join(tmpfs.path, "foreign-0"));
  const refused = await server.api.problem("POST", "/v1/regions", { name: "x", byte_size: 1, ttl_ms: hour });
  expect(refused).toMatchObject({ status: 507, code: "out-of-inodes" });
  expect(tmpfs.freeInodes).toBe(1);
  await checkBooks(server);
  await server.crash();
  expect((await server.api.list()).map(({ id }) => id)).toEqual([region?.id ?? ""]);
  expect(readdirSync(server.instance.keep)).toEqual([tokenOf(region?.id ?? "")]);
  giveBack();
});
