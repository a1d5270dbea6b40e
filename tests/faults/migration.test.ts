/**
 * A journal that an earlier version wrote is brought forward: an upgrade loses no name. `fixtures/store-N.sqlite` were
 * written by those versions, from requests; the files that their rows are of are made here, and the rows told of their
 * inodes. The second has labels that no request could set any more.
 */

import { Database } from "bun:sqlite";
import { afterAll, expect } from "bun:test";
import { copyFileSync, lstatSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { assertNothingLeft } from "../harness/instance.ts";
import { checkBooks, checkRows } from "../harness/instance-check.ts";
import { testWith } from "../harness/instance-needs.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import type { Region, ServerApi } from "../harness/server-api.ts";
import { until } from "../harness/server-wait.ts";

const fixture = (version: number) => join(import.meta.dirname, `fixtures/store-${version}.sqlite`);

/** Files that were made here have no public names until the start links them. */
const relinked = /^tensord\.region\.relinked$/;

const sealedId = "reg_l3wh5kmgupeslclisqihsxdekr";
const openId = "reg_3e66j5wbv4g6ofsrofzshr3dzr";
const pendingId = "reg_dzonqc4oyy6c3t7fyp5cgkpdsg";

afterAll(assertNothingLeft);

interface Row {
  readonly key: number;
  readonly record: string;
}

function databasePath({ instance }: TestServer): string {
  return join(instance.store, "tensord.sqlite");
}

function withDatabase<Result>(server: TestServer, use: (database: Database) => Result): Result {
  using database = new Database(databasePath(server));
  return use(database);
}

function readVersion(server: TestServer): number {
  return withDatabase(server, (database) => {
    return (database.query("PRAGMA user_version").get() as { user_version: number }).user_version;
  });
}

/** A stopped server of an earlier version, as far as the next one can tell. */
async function stopAsVersion(version: number, server: TestServer): Promise<void> {
  await server.stop();
  for (const name of readdirSync(server.instance.store)) rmSync(join(server.instance.store, name));
  copyFileSync(fixture(version), databasePath(server));
  expect(readVersion(server)).toBe(version);
  withDatabase(server, (database) => {
    for (const { key, record } of database.query("SELECT key, record FROM regions").all() as Row[]) {
      const stored = JSON.parse(record);
      const path = join(server.instance.keep, stored.token);
      writeFileSync(path, Buffer.alloc(stored.byteSize), { mode: 0o660 });
      const { dev, ino } = lstatSync(path, { bigint: true });
      const changed = JSON.stringify({ ...stored, identity: { dev: String(dev), ino: String(ino) } });
      database.run("UPDATE regions SET record = ? WHERE key = ?", [changed, key]);
    }
  });
}

testWith()(
  "a journal of version 1 is brought forward, and every region, name, model and checksum is there",
  async () => {
    await using server = await startServer();
    server.log.expect(relinked);
    await stopAsVersion(1, server);
    await server.start();
    const { api } = server;
    const weights = await api.call<Region>("GET", "/v1/models/llama/regions/weights");
    expect(weights).toMatchObject({
      id: sealedId,
      state: "sealed",
      revision: 2,
      owner: { kind: "persist" },
      session: null,
      evictable: false,
      labels: { job: "nightly" },
    });
    expect(weights.tensors.map(({ name, dtype, shape }) => [name, dtype, shape])).toEqual([
      ["w", "F32", [4, 4]],
      ["b", "BF16", [7]],
    ]);
    expect(await api.verify(sealedId)).toMatchObject({ ok: true });
    expect(lstatSync(weights.storage.path).mode & 0o777).toBe(0o440);
    expect(await api.findByName("open")).toMatchObject({ id: openId, state: "open", owner: { kind: "ttl" } });
    expect(await api.get(pendingId)).toMatchObject({ name: null, pending_name: "weights", session: null });
    expect(await api.call<object>("GET", "/v1/models/llama")).toMatchObject({
      pools: [{ limit_bytes: 2 ** 30 }],
      regions: 2,
    });
    await checkBooks(server);
    await server.stop();
    expect(readVersion(server)).toBeGreaterThan(1);
    checkRows(server.instance);
  },
);

testWith()(
  "what version 1 began goes on, and what it did not know works beside it, over the next start too",
  async () => {
    await using server = await startServer();
    server.log.expect(relinked);
    await stopAsVersion(1, server);
    await server.start();
    const { api } = server;
    await api.seal(pendingId);
    expect(await api.call<Region>("GET", "/v1/models/llama/regions/weights")).toMatchObject({ id: pendingId });
    await api.untilGone(sealedId);
    const session = await api.call<{ id: string }>("POST", "/v1/sessions", { ttl_ms: 86_400_000 });
    const own = await api.create({ name: "own", byte_size: 1, session: session.id });
    await api.call("PATCH", `/v1/regions/${openId}`, { linger_ms: 86_400_000, evictable: true });
    await api.call("POST", "/v1/models/default/regions/next/claim", { session: session.id });
    await api.call("POST", `/v1/regions/${openId}/leases`, { ttl_ms: 86_400_000 });
    await server.crash();
    expect(await api.stats()).toMatchObject({ sessions: 1, claims: 1, leases: 1, regions: { open: 2, sealed: 1 } });
    expect(await api.get(own.id)).toMatchObject({ name: "own", session: session.id });
    expect(await api.findByName("open")).toMatchObject({ id: openId, evictable: true, owner: { kind: "linger" } });
    expect(await api.call<Region>("GET", "/v1/models/llama/regions/weights")).toMatchObject({ id: pendingId });
  },
);

testWith()(
  "a journal of version 2 is brought forward: sessions, claims, leases, owners, and labels as they were",
  async () => {
    await using server = await startServer();
    server.log.expect(relinked);
    await stopAsVersion(2, server);
    await server.start();
    const { api } = server;
    await checkVersion2(api);
    // What was brought forward is a journal of this version: it is there again after a crash.
    await server.crash();
    await checkVersion2(api);
    await api.seal("reg_sr2l4zh47c3ju62tbzcdygpytq");
    expect(await api.call<Region>("GET", "/v1/models/llama/regions/weights")).toMatchObject({
      id: "reg_sr2l4zh47c3ju62tbzcdygpytq",
    });
    await api.call("DELETE", "/v1/sessions/ses_ba6kmrjnupqloj2i7r7r3xtogy");
    expect(await api.stats()).toMatchObject({ sessions: 0, claims: 0, leases: 0 });
    // Its name was taken, and the session's lease was its last.
    await api.untilGone("reg_5klyhlpxzu7v7blnu3hedndzpt");
    await checkBooks(server);
    await server.stop();
    expect(readVersion(server)).toBe(4);
    checkRows(server.instance);
  },
);

testWith()("a journal of version 3 is brought forward, to one that has elastic pools", async () => {
  await using server = await startServer();
  server.log.expect(relinked);
  await stopAsVersion(3, server);
  await server.start();
  const { api } = server;
  expect(await api.call<Region>("GET", "/v1/models/llama/regions/weights")).toMatchObject({
    id: "reg_xk6ywnazl3x7jlw5um7jdbncle",
    version: "2",
    state: "sealed",
    labels: { step: "7" },
  });
  expect(await api.call<object>("GET", "/v1/models/llama")).toMatchObject({ pools: [{ limit_bytes: 1_000_000 }] });
  expect(await api.stats()).toMatchObject({ sessions: 1 });
  await checkBooks(server);
  await server.stop();
  expect(readVersion(server)).toBe(4);
  const tables = withDatabase(server, (database) =>
    database.query("SELECT name FROM sqlite_schema WHERE name LIKE 'elastic%' AND type = 'table'").all(),
  );
  expect(tables).toEqual([{ name: "elastic_pools" }, { name: "elastic_runs" }]);
  checkRows(server.instance);
});

/** All that the journal of version 2 says. */
async function checkVersion2(api: ServerApi): Promise<void> {
  const weights = await api.call<Region>("GET", "/v1/models/llama/regions/weights");
  expect(weights).toMatchObject({
    id: "reg_5klyhlpxzu7v7blnu3hedndzpt",
    version: "",
    storage: { format: "safetensors" },
    owner: { kind: "persist" },
    labels: { job: "nightly" },
  });
  expect(weights.tensors).toMatchObject([
    { name: "w", dtype: "F32", shape: [4, 4], byte_offset: 4096, byte_size: 64, aligned: true, alias_of: null },
    { name: "b", dtype: "BF16", shape: [7], byte_offset: 4160, byte_size: 14 },
  ]);
  expect(await api.verify(weights.id)).toMatchObject({ ok: true });
  expect(await api.findByName("lingers")).toMatchObject({
    owner: { kind: "linger", linger_ms: 86_400_000, handoff_ms: 60_000 },
    evictable: true,
    labels: { "": "no key", "bell\u0007": "\u001b[31mred", long: "x".repeat(5000) },
  });
  expect(await api.findByName("own")).toMatchObject({ session: "ses_ba6kmrjnupqloj2i7r7r3xtogy" });
  expect(await api.call<object>("GET", "/v1/models/llama")).toMatchObject({
    pools: [{ pool: "host", limit_bytes: 2 ** 30 }],
    regions: 2,
  });
  expect(await api.call<object>("GET", "/v1/models/free")).toMatchObject({ pools: [{ limit_bytes: null }] });
  expect(await api.stats()).toMatchObject({
    ...{ sessions: 1, claims: 2, leases: 1, models: 3 },
    regions: { open: 4, sealed: 1 },
  });
}

testWith()("a journal whose migration meets a row that it cannot read is set aside whole, as it was", async () => {
  await using server = await startServer();
  server.log.expect(relinked);
  server.log.expect(/^The journal is damaged and was set aside /);
  // The files were made here, without headers.
  server.log.expect(/^Cannot read the header of /);
  await stopAsVersion(2, server);
  withDatabase(server, (database) => database.run("UPDATE regions SET record = '{' WHERE key = 5"));
  await server.start();
  await server.stop();
  const aside = readdirSync(server.instance.store).find((name) => /damaged-\d+$/.test(name)) ?? "";
  using database = new Database(join(server.instance.store, aside), { readonly: true });
  // One transaction: none of it has happened.
  expect(database.query("PRAGMA user_version").get()).toEqual({ user_version: 2 });
  const tables = database.query("SELECT count(*) AS count FROM sqlite_schema WHERE name = 'tensors'").get();
  expect(tables).toEqual({ count: 0 });
});

testWith()("an unmapped hand-off still waits for its consumer after a crash", async () => {
  await using server = await startServer();
  const { id, created_at } = await server.api.create({ byte_size: 1, linger_ms: 0, handoff_ms: 3_600_000 });
  await server.crash();
  const due = Date.parse(created_at) + 3_600_000;
  const listed = async () => (await server.api.list()).find((region) => region.id === id);
  await until("it is asked about", async () => Date.parse((await listed())?.expires_at ?? "") === due);
});

testWith()("a journal of a later version is left as it is, and the server says why it does not start", async () => {
  await using server = await startServer();
  const { id } = await server.api.create({ name: "weights", byte_size: 1, persist: true });
  await server.stop();
  const version = readVersion(server);
  withDatabase(server, (database) => database.run(`PRAGMA user_version = ${version + 1}`));
  server.spawn();
  expect(await server.exited()).not.toBe(0);
  expect(server.log.errors).toContain(`its schema is version ${version + 1}, want at most ${version}`);
  server.log.errors = "";
  withDatabase(server, (database) => database.run(`PRAGMA user_version = ${version}`));
  await server.start();
  expect(await server.api.findByName("weights")).toMatchObject({ id, state: "open" });
});
