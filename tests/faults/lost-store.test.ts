/** The journal is deleted, damaged or forged while no server runs. Regions are worth more than the books about them. */

import { Database } from "bun:sqlite";
import { afterAll, expect } from "bun:test";
import {
  chmodSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { assertNothingLeft, tokenOf } from "../harness/instance.ts";
import { checkBooks, checkRows } from "../harness/instance-check.ts";
import { currentMark, readContent } from "../harness/instance-content.ts";
import { ForeignFiles } from "../harness/instance-foreign.ts";
import { needsPython, needsRoot, root, testWith } from "../harness/instance-needs.ts";
import { Tmpfs } from "../harness/instance-tmpfs.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import { until } from "../harness/server-wait.ts";
import { WorkerProcess } from "../harness/worker.ts";
import {
  checkAdopted,
  forgetStore,
  hour,
  MiB,
  makeRegions,
  relinked,
  toToken,
  withMetadata,
} from "./lost-store-regions.ts";

afterAll(assertNothingLeft);

testWith(needsPython)(
  "regions of a deleted store are adopted from their own files, and their leases are seen",
  async () => {
    await using server = await startServer();
    using foreign = new ForeignFiles(server.instance);
    await using worker = new WorkerProcess();
    const made = await makeRegions(server);
    await worker.attach("r", made.sealed.region);
    const { epoch } = await server.api.stats();
    await server.stop();
    forgetStore(server);
    await server.start();
    await checkAdopted(server, made);
    const { mode } = statSync(made.sealed.region.storage.path);
    expect(mode & currentMark, "whether it is what it was known as, nobody can say").toBe(0);
    expect((await server.api.get(made.sealed.region.id)).in_use).toBeTrue();
    expect((await server.api.stats()).epoch, "a client sees that the server began anew").not.toBe(epoch);
    await checkBooks(server, foreign.names);
    // They are regions like any other now, over the next start too.
    await server.crash();
    await checkAdopted(server, made);
    expect((await server.api.delete(made.open.region.id)).state).toBe("deleted");
    foreign.assertUntouched();
  },
);

testWith()(
  "a journal of which only the database or only its log is deleted is no reason not to start, and loses no bytes",
  async () => {
    for (const lost of ["tensord.sqlite", "tensord.sqlite-wal"]) {
      await using server = await startServer();
      const made = await makeRegions(server);
      await server.kill("SIGKILL");
      rmSync(join(server.instance.store, lost));
      await server.start();
      for (const { region, content } of Object.values(made)) {
        expect(readContent(region.storage.path), `${lost} is gone`).toEqual(content);
      }
      await checkBooks(server);
    }
  },
);

testWith()("an adoption that is killed in between goes on at the next start, and drains nothing", async () => {
  await using server = await startServer();
  const made = await makeRegions(server);
  const count = 400;
  await Promise.all(
    Array.from({ length: count }, (_, at) => server.api.create({ name: `r${at}`, byte_size: 1000, persist: true })),
  );
  await server.stop();
  forgetStore(server);
  // Wherever it dies between its first write and the last, nothing may be lost.
  for (let round = 0; round < 6; round++) {
    server.spawn();
    await until("the journal is there", () => readdirSync(server.instance.store).includes("tensord.sqlite-wal"));
    await Bun.sleep(2 * round);
    await server.kill("SIGKILL");
  }
  await server.start();
  await checkAdopted(server, made);
  expect(await server.api.list()).toHaveLength(count + 3);
  await checkBooks(server);
});

testWith(needsRoot)("an adoption that finds the file system full loses nothing once there is room", async () => {
  using tmpfs = new Tmpfs({ sizeBytes: 64 * MiB });
  await using server = await startServer({ shmDirectory: tmpfs.path });
  server.log.expect(relinked, /^Cannot (reserve numbers for|keep the) events/);
  const made = await makeRegions(server);
  const count = 500;
  await Promise.all(
    Array.from({ length: count }, (_, at) => server.api.create({ name: `r${at}`, byte_size: 1000, persist: true })),
  );
  await server.stop();
  forgetStore(server);
  rmSync(join(server.instance.store, "ballast"));
  const foreign = tmpfs.fill();
  // Enough for the schema and some rows, and not for all of them.
  truncateSync(foreign, tmpfs.usedBytes > 0 ? readFileSync(foreign).length - 200_000 : 0);
  server.spawn();
  const status = await Promise.race([server.exited(), until("it is ready", () => isReady(server)).then(() => "ready")]);
  server.log.errors = "";
  unlinkSync(foreign);
  if (status === "ready") await server.crash();
  else await server.start();
  await checkAdopted(server, made);
  expect(await server.api.list()).toHaveLength(count + 3);
  await checkBooks(server);
});

async function isReady(server: TestServer): Promise<boolean> {
  return server.isRunning && (await server.api.request("GET", "/readyz").catch(() => ({ status: 0 }))).status === 200;
}

testWith()(
  "hostile headers in the keeper do not keep the server from starting: their bytes are adopted as they are",
  async () => {
    const folder = join(root, "tests/hostile/headers");
    const files = readdirSync(folder);
    await using server = await startServer();
    server.log.expect(/^Cannot read the header of /, relinked);
    const made = await makeRegions(server);
    await server.stop();
    forgetStore(server);
    for (const file of files)
      writeFileSync(join(server.instance.keep, toToken(file)), readFileSync(join(folder, file)));
    await server.start();
    await checkAdopted(server, made);
    for (const file of files) {
      const region = await server.api.get(`reg_${toToken(file)}`);
      const byteSize = readFileSync(join(folder, file)).length;
      expect(region, file).toMatchObject({ name: null, model: "default", state: "open" });
      expect(region.tensors).toMatchObject([{ name: "data", dtype: "U8", shape: [byteSize], byte_offset: 0 }]);
      expect(readFileSync(region.storage.path)).toEqual(readFileSync(join(folder, file)));
      expect(region.expires_at).not.toBeNull();
    }
    await checkBooks(server);
  },
);

testWith()("a file that claims another's name, or one that is out of bounds, is adopted without one", async () => {
  await using server = await startServer();
  server.log.expect(relinked);
  const made = await makeRegions(server);
  const original = readFileSync(made.open.region.storage.path);
  await server.stop();
  forgetStore(server);
  const twin = toToken("twin");
  writeFileSync(join(server.instance.keep, twin), original);
  const evil = toToken("evil");
  writeFileSync(join(server.instance.keep, evil), withMetadata({ "tensord.model": "../../etc", "tensord.name": ".." }));
  await server.start();
  expect((await server.api.get(`reg_${twin}`)).name).toBeNull();
  expect((await server.api.findByName("open"))?.id).toBe(made.open.region.id);
  expect(await server.api.get(`reg_${evil}`)).toMatchObject({ model: "default", name: null, state: "open" });
  await checkBooks(server);
});

testWith()("what is no region in the keeper is left alone", async () => {
  await using server = await startServer();
  const made = await makeRegions(server);
  await server.stop();
  forgetStore(server);
  const strange = join(server.instance.keep, "not-a-token");
  writeFileSync(strange, "left alone");
  await server.start();
  await checkAdopted(server, made);
  expect(readFileSync(strange, "utf8")).toBe("left alone");
  unlinkSync(strange);
  await checkBooks(server);
});

testWith()(
  "a file in the keeper that no row knows and no name shows is drained, for nobody was told of it",
  async () => {
    await using server = await startServer();
    const made = await makeRegions(server);
    await server.kill("SIGKILL");
    const orphan = toToken("orphan");
    writeFileSync(join(server.instance.keep, orphan), withMetadata({}));
    await server.start();
    await server.api.untilGone(`reg_${orphan}`);
    expect(readdirSync(server.instance.keep)).toHaveLength(3);
    for (const { region, content } of Object.values(made)) expect(readContent(region.storage.path)).toEqual(content);
    await checkBooks(server);
  },
);

testWith()("a row whose file is another one by now is reported as lost, and that one is not taken for it", async () => {
  await using server = await startServer();
  server.log.expect(/^tensord\.region\.lost$/);
  const { region } = (await makeRegions(server)).open;
  await server.stop();
  const kept = join(server.instance.keep, tokenOf(region.id));
  writeFileSync(`${kept}.other`, Buffer.alloc(region.storage.byte_size), { mode: 0o660 });
  unlinkSync(region.storage.path);
  renameSync(`${kept}.other`, kept);
  await server.start();
  await server.api.untilGone(region.id);
  await until("the log says so", () => server.log.find(/^tensord\.region\.lost$/));
  await checkBooks(server);
});

testWith()("tensors whose region was never entered, or has gone, do not outlive the next start", async () => {
  await using server = await startServer();
  const { region, content } = (await makeRegions(server)).open;
  await server.stop();
  {
    using database = new Database(join(server.instance.store, "tensord.sqlite"));
    for (const key of [0, 1_000_000]) database.run("INSERT INTO tensors VALUES (?, 0, '[]')", [key]);
  }
  await server.start();
  expect(readContent(region.storage.path)).toEqual(content);
  await server.stop();
  checkRows(server.instance);
});

testWith()(
  "a seal that was under way when the server died is undone, though a change has written it down",
  async () => {
    await using server = await startServer();
    const { region } = (await makeRegions(server)).open;
    await server.stop();
    {
      using database = new Database(join(server.instance.store, "tensord.sqlite"));
      database.run("UPDATE regions SET state = 'sealing' WHERE name = 'open'");
    }
    chmodSync(region.storage.path, 0o1440);
    await server.start();
    expect(await server.api.get(region.id)).toMatchObject({ state: "open" });
    await checkBooks(server);
    expect(await server.api.seal(region.id)).toMatchObject({ state: "sealed" });
  },
);

testWith()("a row whose file is gone is reported as lost and dropped; the others are untouched", async () => {
  await using server = await startServer();
  server.log.expect(/^tensord\.region\.lost$/);
  const made = await makeRegions(server);
  await server.stop();
  const { region } = made.open;
  for (const path of [region.storage.path, join(server.instance.keep, tokenOf(region.id))]) unlinkSync(path);
  await server.start();
  expect(await server.api.find(region.id)).toBeUndefined();
  await until("the log says so", () => server.log.find(/^tensord\.region\.lost$/));
  expect((await server.api.create({ name: "open", byte_size: 1, ttl_ms: hour })).state).toBe("open");
  await checkBooks(server);
});
