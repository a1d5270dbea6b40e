/** Others put things where a region's name was, or link its file elsewhere. */

import { afterAll, expect } from "bun:test";
import {
  linkSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { hostOf } from "../../src/server/cli/pools.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { checkBooks } from "../harness/instance-check.ts";
import { exists, readContent, writeContent } from "../harness/instance-content.ts";
import { ForeignFiles } from "../harness/instance-foreign.ts";
import { needsPython, testWith } from "../harness/instance-needs.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import { until } from "../harness/server-wait.ts";
import { WorkerProcess } from "../harness/worker.ts";

const hour = 3_600_000;
const relinked = /^tensord\.region\.relinked$/;
const blocked = /^Cannot bring the name of .+ back; the next look tries again$/;

afterAll(assertNothingLeft);

async function startWithRegion(server: TestServer) {
  const region = await server.api.create({ name: "named", byte_size: 100_000, persist: true });
  writeContent(region, 1);
  return { region, path: region.storage.path, before: readContent(region.storage.path) };
}

testWith()(
  "a foreign file in a name's place is renamed over and reported, and its content is not touched",
  async () => {
    await using server = await startServer();
    server.log.expect(relinked);
    const { region, path, before } = await startWithRegion(server);
    const other = join(server.instance.shmDirectory, `tensord.${server.instance.name}-other`);
    writeFileSync(other, "foreign");
    linkSync(other, `${other}-kept`);
    renameSync(other, path);
    const line = await until("the log says so", () => server.log.find(relinked));
    expect(line).toMatchObject({ region: region.id, cause: "foreign-file", level: 40 });
    expect(readContent(path)).toEqual(before);
    expect(readFileSync(`${other}-kept`, "utf8")).toBe("foreign");
    unlinkSync(`${other}-kept`);
    await checkBooks(server);
  },
);

testWith()("a link in a name's place is renamed over, and what it points to is not touched", async () => {
  await using server = await startServer();
  server.log.expect(relinked);
  const { path, before } = await startWithRegion(server);
  const target = join(server.instance.shmDirectory, `tensord.${server.instance.name}-target`);
  writeFileSync(target, "precious");
  const link = `${target}-link`;
  symlinkSync(target, link);
  renameSync(link, path);
  await until("the name is back", () => exists(path) && readOrNone(path)?.ino === before.ino);
  expect(readContent(path)).toEqual(before);
  expect(readFileSync(target, "utf8")).toBe("precious");
  unlinkSync(target);
  await checkBooks(server);
});

/** The content, or undefined while a link stands there. */
function readOrNone(path: string) {
  try {
    return readContent(path);
  } catch {
    return undefined;
  }
}

testWith(needsPython)(
  "a directory in a name's place is survived and said, and the name is back once it is gone",
  async () => {
    await using server = await startServer();
    server.log.expect(relinked, blocked);
    await using worker = new WorkerProcess();
    const { region, path, before } = await startWithRegion(server);
    const directory = join(server.instance.shmDirectory, `tensord.${server.instance.name}-directory`);
    mkdirSync(directory);
    await worker.exchange(directory, path);
    unlinkSync(directory);
    expect(await server.api.get(region.id)).toMatchObject({ state: "open" });
    await until("the log says so", () => server.log.find(blocked));
    expect((await server.api.create({ name: "next", byte_size: 1, ttl_ms: hour })).state).toBe("open");
    // Also over a start.
    await server.crash();
    expect(await server.api.get(region.id)).toMatchObject({ state: "open", name: "named" });
    rmdirSync(path);
    await server.api.get(region.id);
    expect(readContent(path)).toEqual(before);
    await checkBooks(server);
  },
);

testWith(needsPython)("a region whose name a directory took can be deleted, and the directory stays", async () => {
  await using server = await startServer();
  server.log.expect(relinked, blocked);
  await using worker = new WorkerProcess();
  const { region, path } = await startWithRegion(server);
  const directory = join(server.instance.shmDirectory, `tensord.${server.instance.name}-directory`);
  mkdirSync(directory);
  writeFileSync(join(directory, "inside"), "theirs");
  await worker.exchange(directory, path);
  unlinkSync(directory);
  expect((await server.api.delete(region.id)).state).toBe("deleted");
  expect(readFileSync(join(path, "inside"), "utf8")).toBe("theirs");
  rmSync(path, { recursive: true });
  await checkBooks(server);
});

testWith()("a foreign file that takes the name while no server runs is renamed over at the start", async () => {
  await using server = await startServer();
  server.log.expect(relinked);
  const { path, before } = await startWithRegion(server);
  await server.kill("SIGKILL");
  unlinkSync(path);
  writeFileSync(path, "foreign");
  await server.start();
  expect(readContent(path)).toEqual(before);
  await checkBooks(server);
});

testWith()("a region whose file is linked elsewhere drains until that link goes, and says why", async () => {
  await using server = await startServer();
  const { region, path, before } = await startWithRegion(server);
  const other = join(server.instance.shmDirectory, `tensord.${server.instance.name}-linked`);
  linkSync(path, other);
  expect((await server.api.delete(region.id)).state).toBe("draining");
  expect(exists(path)).toBeFalse();
  const draining = await server.api.get(region.id);
  expect(draining).toMatchObject({ state: "draining", in_use: false });
  expect(draining.drain).toEqual({ reason: "request", waits_for: "hard-link" });
  expect(hostOf(await server.api.stats()).draining_bytes).toBeGreaterThan(0);
  await server.crash();
  expect(readContent(other)).toEqual(before);
  await until("it is asked again", async () => (await server.api.get(region.id)).drain?.waits_for === "hard-link");
  unlinkSync(other);
  await server.api.untilGone(region.id);
  await checkBooks(server);
});

testWith()("files whose names look like ours are left as they are through a whole life", async () => {
  await using server = await startServer();
  using foreign = new ForeignFiles(server.instance);
  server.log.expect(relinked);
  const { region, path } = await startWithRegion(server);
  unlinkSync(path);
  await until("the name is back", () => exists(path));
  await server.api.seal(region.id);
  await server.crash();
  await server.api.delete(region.id);
  await checkBooks(server, foreign.names);
  await server.stop();
  const { status } = await server.command("purge");
  expect(status).toBe(0);
  foreign.assertUntouched();
});

testWith()(
  "a file that is removed from the keeper and by name is reported as lost, and the books let it go",
  async () => {
    await using server = await startServer();
    server.log.expect(relinked, /^tensord\.region\.lost$/);
    const { region, path } = await startWithRegion(server);
    const other = await server.api.create({ name: "other", byte_size: 1, persist: true });
    for (const name of [join(server.instance.keep, region.id.slice(4)), path]) unlinkSync(name);
    await until("it is out of the books", async () => (await server.api.find(region.id)) === undefined);
    await until("the log says so", () => server.log.find(/^tensord\.region\.lost$/));
    expect((await server.api.create({ name: "named", byte_size: 1, ttl_ms: hour })).state).toBe("open");
    expect((await server.api.get(other.id)).state).toBe("open");
    await checkBooks(server);
  },
);
