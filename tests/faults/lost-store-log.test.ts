/**
 * The database's write-ahead log is lost while no server runs, and with it the newest rows: the database is whole, and
 * older than what clients were told.
 */

import { afterAll, expect } from "bun:test";
import { linkSync, readFileSync, rmSync, truncateSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { assertNothingLeft, tokenOf } from "../harness/instance.ts";
import { checkBooks, checkRows, modes } from "../harness/instance-check.ts";
import { readContent, writeContent } from "../harness/instance-content.ts";
import { needsPython, testWith } from "../harness/instance-needs.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import { until } from "../harness/server-wait.ts";
import { WorkerProcess } from "../harness/worker.ts";
import { checkAdopted, hour, type Made, makeRegions, toToken, withMetadata } from "./lost-store-regions.ts";

const adopted = /^Adopted \d+ regions? whose rows? (is|are) lost/;
/** Rows that are older than the truth: of regions that were deleted since. */
const lost = /^tensord\.region\.lost$/;

afterAll(assertNothingLeft);

/** A region whose row is in the database itself: the server was stopped in order since. */
async function makeOlder({ api }: TestServer, name: string): Promise<Made> {
  const region = await api.create({ name, byte_size: 50_000, persist: true, labels: { older: "yes" } });
  writeContent(region, 7);
  return { region, content: readContent(region.storage.path) };
}

async function checkUntouched({ api }: TestServer, { region, content }: Made): Promise<void> {
  expect(await api.get(region.id)).toMatchObject({ name: region.name, labels: { older: "yes" }, state: "open" });
  expect(readContent(region.storage.path)).toEqual(content);
}

for (const [how, damage] of Object.entries<(path: string) => void>({
  deleted: (path) => rmSync(path),
  "cut to its half": (path) => truncateSync(path, Math.floor(readFileSync(path).length / 2)),
  "cut to nothing": (path) => truncateSync(path, 0),
  garbled: (path) => {
    const bytes = readFileSync(path);
    for (let at = 64; at < bytes.length; at += 512) bytes[at] = (bytes[at] ?? 0) ^ 0xff;
    writeFileSync(path, bytes);
  },
})) {
  testWith()(`a log that is ${how} loses no region that was acknowledged`, async () => {
    await using server = await startServer();
    server.log.expect(adopted);
    const older = await makeOlder(server, "older");
    await server.stop();
    await server.start();
    const made = await makeRegions(server);
    await server.kill("SIGKILL");
    damage(join(server.instance.store, "tensord.sqlite-wal"));
    await server.start();
    await checkUntouched(server, older);
    if (how !== "cut to its half") await checkAdopted(server, made);
    for (const { region, content } of Object.values(made)) {
      const now = await server.api.get(region.id);
      expect(now).toMatchObject({ name: region.name, model: region.model, storage: region.storage });
      // Half of a log may still have the row as it was before the seal.
      const { mode, ...bytes } = readContent(region.storage.path);
      expect(bytes).toEqual({ ino: content.ino, byteSize: content.byteSize, hash: content.hash });
      expect(mode).toBe(now.state === "open" ? modes.open : content.mode);
    }
    await until("the log says so", () => server.log.find(adopted));
    expect(await checkBooks(server)).toHaveLength(4);
    await server.stop();
    checkRows(server.instance);
  });
}

testWith()(
  "a seal whose row is lost comes back open, and one that is lost with its region comes back sealed",
  async () => {
    await using server = await startServer();
    server.log.expect(adopted);
    const older = await makeOlder(server, "older");
    await server.stop();
    await server.start();
    const { region: newer } = await makeOlder(server, "newer");
    for (const { id } of [older.region, newer]) await server.api.seal(id);
    await server.kill("SIGKILL");
    rmSync(join(server.instance.store, "tensord.sqlite-wal"));
    await server.start();
    await checkUntouched(server, older);
    expect(await server.api.get(newer.id)).toMatchObject({ name: "newer", state: "sealed", checksum: null });
    await checkBooks(server);
  },
);

testWith(needsPython)(
  "a sealed mode that a writer outlived is a seal that was never committed, where nothing proves it",
  async () => {
    await using server = await startServer();
    await using worker = new WorkerProcess();
    server.log.expect(adopted);
    await server.stop();
    await server.start();
    const { region } = await makeOlder(server, "half-sealed");
    await worker.attach("r", region, "write");
    await server.kill("SIGKILL");
    rmSync(join(server.instance.store, "tensord.sqlite-wal"));
    // A proof would say that it was open.
    rmSync(join(server.instance.directory, "proofs"));
    Bun.spawnSync(["chmod", modes.sealed.toString(8), region.storage.path]);
    await server.start();
    expect(await server.api.get(region.id)).toMatchObject({ name: null, state: "open", has_writers: true });
    await checkBooks(server);
  },
);

testWith()("what was deleted or replaced after the last row that is left does not come back", async () => {
  await using server = await startServer();
  server.log.expect(adopted, lost);
  const [deleted, replaced] = [await makeOlder(server, "deleted"), await makeOlder(server, "replaced")];
  await server.stop();
  await server.start();
  await server.api.delete(deleted.region.id);
  const next = await server.api.create({ name: "replaced", byte_size: 9, persist: true, if_exists: "replace" });
  await server.api.seal(next.id);
  await server.kill("SIGKILL");
  rmSync(join(server.instance.store, "tensord.sqlite-wal"));
  await server.start();
  for (const { region } of [deleted, replaced]) expect(await server.api.find(region.id)).toBeUndefined();
  expect(await server.api.findByName("replaced")).toMatchObject({ id: next.id, state: "sealed" });
  await checkBooks(server);
});

testWith(needsPython)(
  "a change whose row is lost is undone, the deletion of what is still mapped included",
  async () => {
    await using server = await startServer();
    await using worker = new WorkerProcess();
    const [changed, mapped] = [await makeOlder(server, "changed"), await makeOlder(server, "mapped")];
    await server.stop();
    await server.start();
    server.log.expect(/^tensord\.region\.relinked$/);
    await server.api.call("PATCH", `/v1/regions/${changed.region.id}`, { labels: { older: "no" } });
    await worker.attach("r", mapped.region);
    expect((await server.api.delete(mapped.region.id)).state).toBe("draining");
    await server.kill("SIGKILL");
    rmSync(join(server.instance.store, "tensord.sqlite-wal"));
    await server.start();
    for (const made of [changed, mapped]) await checkUntouched(server, made);
    await checkBooks(server);
  },
);

testWith()("only a name that is a link to the very file proves that a row was lost", async () => {
  await using server = await startServer();
  server.log.expect(adopted);
  await makeOlder(server, "older");
  await server.stop();
  await server.start();
  const { region: unnamed } = await makeOlder(server, "unnamed");
  await server.kill("SIGKILL");
  rmSync(join(server.instance.store, "tensord.sqlite-wal"));
  // A worker took the name away; and beside an orphan stands a foreign file under its name.
  unlinkSync(unnamed.storage.path);
  const publicPath = (token: string) => join(server.instance.shmDirectory, `tensord.${server.instance.name}.${token}`);
  const [shown, foreign] = [toToken("shown"), toToken("foreign")];
  for (const token of [shown, foreign]) writeFileSync(join(server.instance.keep, token), withMetadata({}));
  linkSync(join(server.instance.keep, shown), publicPath(shown));
  writeFileSync(publicPath(foreign), "not ours");
  await server.start();
  for (const token of [tokenOf(unnamed.id), foreign]) await server.api.untilGone(`reg_${token}`);
  expect(await server.api.get(`reg_${shown}`)).toMatchObject({ name: null, labels: { "tensord.recovered": "true" } });
  expect(readFileSync(publicPath(foreign), "utf8"), "what is not ours is left alone").toBe("not ours");
  unlinkSync(publicPath(foreign));
  expect((await server.api.create({ name: "unnamed", byte_size: 1, ttl_ms: hour })).state).toBe("open");
  await checkBooks(server);
});
