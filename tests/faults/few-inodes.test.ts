/**
 * A file system whose inodes are used up, by nr_inodes or by others' files: a first start says so and leaves nothing; a
 * later one serves what it has.
 */

import { afterAll, expect } from "bun:test";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { limits } from "../../src/memory/limits.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { checkBooks } from "../harness/instance-check.ts";
import { readContent, writeContent } from "../harness/instance-content.ts";
import { needsPython, needsRoot, testWith } from "../harness/instance-needs.ts";
import { Tmpfs } from "../harness/instance-tmpfs.ts";
import { startServer, TestServer } from "../harness/server.ts";
import { until } from "../harness/server-wait.ts";
import { WorkerProcess } from "../harness/worker.ts";

afterAll(assertNothingLeft);

const MiB = 2 ** 20;
const hour = 3_600_000;
/** Who resumes after such a stop is told of a gap. */
const noEvents = /^Cannot keep the events /;
const noInodes = /^[01] inodes? of the file system are free /;
/** The root of a tmpfs takes one. */
const rootInodes = 1;

/** Starts the server where it cannot. @returns its exit status, and all that it wrote. */
async function refuse(server: TestServer): Promise<{ status: unknown; text: string }> {
  server.spawn();
  const status = await server.exited();
  const { errors } = server.log;
  server.log.errors = "";
  return { status, text: errors };
}

testWith(needsRoot)("a first start without the inodes that it takes says one sentence, and makes nothing", async () => {
  for (const inodes of [rootInodes, 4, rootInodes + limits.firstStartInodes - 1]) {
    using tmpfs = new Tmpfs({ sizeBytes: 64 * MiB, inodes });
    await using server = new TestServer({ shmDirectory: tmpfs.path });
    const { status, text } = await refuse(server);
    expect(status).toBe(1);
    const [sentence, hint, ...more] = text.trimEnd().split("\n");
    expect(sentence).toStartWith(
      `tensord: Cannot make instance ${server.instance.name}: no inode is free in ${tmpfs.path}`,
    );
    expect(sentence).toEndWith(`: ${limits.firstStartInodes} are wanted, ${inodes - rootInodes} are left`);
    expect(hint).toBe("hint: Delete regions or foreign files there, or mount it with a larger nr_inodes.");
    expect(more).toEqual([]);
    expect(tmpfs.names()).toEqual([]);
  }
});

testWith(needsRoot)(
  "a first start with just these inodes serves, and says at once that there are none left",
  async () => {
    using tmpfs = new Tmpfs({ sizeBytes: 64 * MiB, inodes: rootInodes + limits.firstStartInodes });
    await using server = await startServer({ shmDirectory: tmpfs.path });
    await until("the log says so", () => server.log.find(noInodes));
    const refused = await server.api.problem("POST", "/v1/regions", { byte_size: 1, ttl_ms: hour });
    expect(refused).toMatchObject({ status: 507, code: "out-of-inodes" });
  },
);

testWith(needsPython, needsRoot)(
  "a server that is stopped, or killed, where others take every inode starts again, serves what it has, and says what is full",
  async () => {
    using tmpfs = new Tmpfs({ sizeBytes: 64 * MiB, inodes: 100 });
    await using server = await startServer({ shmDirectory: tmpfs.path });
    await using worker = new WorkerProcess();
    server.log.expect(noEvents);
    const regions = [];
    for (const name of ["a", "b", "c", "d"]) {
      const region = await server.api.create({ name, byte_size: 1000, persist: true });
      writeContent(region, 5);
      regions.push(await server.api.seal(region.id));
    }
    const contents = regions.map(({ storage }) => readContent(storage.path));
    // Others take what is free now, and what a stop gives back: the socket's, the log's.
    const giveBack = [tmpfs.fillInodes()];
    for (const end of [() => server.stop(), () => server.stop(), () => server.kill("SIGKILL"), () => server.stop()]) {
      await end();
      giveBack.push(tmpfs.fillInodes());
      server.log.lines.length = 0;
      await server.start();
      expect((await server.api.list()).map(({ id }) => id)).toEqual(regions.map(({ id }) => id));
      expect(regions.map(({ storage }) => readContent(storage.path))).toEqual(contents);
      await until("the log says what is full", () => server.log.find(noInodes));
    }
    await worker.attach("r", regions[0] as (typeof regions)[0]);
    expect((await server.api.delete(regions[1]?.id ?? "")).state).toBe("deleted");
    for (const give of giveBack) give();
    expect((await server.api.create({ name: "b", byte_size: 1, ttl_ms: hour })).state).toBe("open");
    await checkBooks(
      server,
      tmpfs.names().filter((name) => name.startsWith("foreign")),
    );
  },
);

testWith(needsRoot)("a start whose spare inodes are gone as well says the cause, and loses nothing", async () => {
  using tmpfs = new Tmpfs({ sizeBytes: 64 * MiB, inodes: 100 });
  await using server = await startServer({ shmDirectory: tmpfs.path });
  const region = await server.api.create({ name: "a", byte_size: 1000, persist: true });
  await server.stop();
  for (let at = 0; at < limits.spareInodes; at++) rmSync(join(server.instance.directory, `spare-${at}`));
  const giveBack = tmpfs.fillInodes();
  const { status, text } = await refuse(server);
  expect(status).toBe(1);
  expect(text).toBe(
    `tensord: Cannot open the journal: no inode is free in ${tmpfs.path}\n` +
      "hint: Delete regions or foreign files there, or mount it with a larger nr_inodes.\n",
  );
  giveBack();
  await server.start();
  expect((await server.api.findByName("a"))?.id).toBe(region.id);
  await checkBooks(server);
});

testWith(needsRoot)("a shared memory directory of 64 MiB, a container's default, is told at each start", async () => {
  using tmpfs = new Tmpfs({ sizeBytes: 64 * MiB });
  await using server = await startServer({ shmDirectory: tmpfs.path });
  const { level, msg } = await until("the log says so", () => server.log.find(/ in all: a container's default/));
  expect(level).toBe(40);
  expect(msg).toBe(
    `${tmpfs.path} has 64 MiB in all: a container's default, enough to start and not for tensors. Mount it larger: ` +
      "in Docker --shm-size=8g, in Kubernetes an emptyDir with medium: Memory and a sizeLimit.",
  );
});
