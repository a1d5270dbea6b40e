/**
 * The journal is lost, and workers have written what they could: who holds which name, and until when, is what the server
 * itself has put down beside the journal. What nothing proves has no name.
 */

import { afterAll, expect } from "bun:test";
import { closeSync, openSync, readFileSync, rmSync, statSync, unlinkSync, writeSync } from "node:fs";
import { join } from "node:path";
import { assertNothingLeft, tokenOf } from "../harness/instance.ts";
import { checkBooks, checkRows, readMetadata, readProofs } from "../harness/instance-check.ts";
import { readContent, writeContent } from "../harness/instance-content.ts";
import { needsPython, testWith } from "../harness/instance-needs.ts";
import { openSession } from "../harness/instance-sessions.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import type { Region } from "../harness/server-api.ts";
import { until } from "../harness/server-wait.ts";
import { WorkerProcess } from "../harness/worker.ts";
import { forgetStore, hour, relinked, toToken, withMetadata } from "./lost-store-regions.ts";

afterAll(assertNothingLeft);

const day = 24 * hour;
const adopted = /^Adopted \d+ regions? whose rows? (is|are) lost/;

/** Writes the file's beginning, as a worker that maps it can. */
function overwrite({ storage }: Region, bytes: Buffer): void {
  const fd = openSync(storage.path, "r+");
  writeSync(fd, bytes, 0, bytes.length, 0);
  closeSync(fd);
}

/** Writes other names into the region's own header, within its length. */
function forge(region: Region, names: Record<string, string>): void {
  const bytes = readFileSync(region.storage.path);
  const byteSize = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString("utf8", 8, 8 + byteSize)) as { __metadata__: Record<string, string> };
  header.__metadata__ = { ...header.__metadata__, ...names };
  const text = JSON.stringify(header);
  expect(text.length).toBeLessThanOrEqual(byteSize);
  overwrite(region, Buffer.concat([bytes.subarray(0, 8), Buffer.from(text.padEnd(byteSize))]));
}

/** Nameless, in the default model, and gone in a day: what is made of bytes that nothing proves. */
function checkUnproven(region: Region): void {
  expect(region).toMatchObject({
    model: "default",
    name: null,
    pending_name: null,
    version: "",
    owner: { kind: "ttl", ttl_ms: day },
    labels: { "tensord.recovered": "true" },
  });
  expect(region.expires_at).not.toBeNull();
}

function loseLog({ instance }: TestServer): void {
  rmSync(join(instance.store, "tensord.sqlite-wal"));
}

testWith()("a name, a version, a model and an owner are the server's to prove, whatever workers wrote", async () => {
  await using server = await startServer();
  const { api } = server;
  await api.call("POST", "/v1/models", { name: "llama" });
  const make = async (request: Parameters<typeof api.create>[0]) => {
    const region = await api.create(request);
    writeContent(region, region.storage.byte_size);
    return region;
  };
  const victim = await make({ name: "victim", byte_size: 1000, persist: true });
  // What fits into its header is what it can write there.
  const forger = await make({ name: "forger", byte_size: 1000, ttl_ms: hour });
  forge(forger, { "tensord.name": "victim" });
  const inOther = await make({ model: "llama", name: "mine", version: "1", byte_size: 1000, linger_ms: hour });
  forge(inOther, { "tensord.name": "your", "tensord.version": "2", "tensord.model": "bloom" });
  const nameless = await make({ byte_size: 1000, ttl_ms: hour });
  forge(nameless, { "tensord.instance": "", "tensord.name": "a" });
  const wiped = await make({ name: "wiped", byte_size: 1000, persist: true });
  overwrite(wiped, Buffer.alloc(4096, 0xff));
  const session = await openSession(api, {});
  const owned = await make({ name: "owned", byte_size: 1000, session: session.id });
  const seal = [victim, forger].map(({ id }) => api.seal(id));
  const [sealed] = await Promise.all(seal);
  const all = [sealed as Region, await api.get(forger.id), inOther, nameless, wiped];
  await server.stop();
  server.log.expect(/^Cannot read the header of /);
  forgetStore(server);
  await server.start();
  for (const region of all) {
    const { model, name, version, owner, expires_at, created_at, state } = region;
    const now = await api.get(region.id);
    const isTimed = owner.kind === "ttl";
    expect(now).toMatchObject({
      model,
      name,
      version,
      owner,
      created_at,
      state,
      labels: { "tensord.recovered": "true" },
    });
    if (isTimed) expect(now.expires_at).toBe(expires_at);
  }
  expect((await api.findByName("victim"))?.id).toBe(victim.id);
  expect(await api.findByName("a")).toBeUndefined();
  expect((await api.get(wiped.id)).tensors).toMatchObject([{ dtype: "U8", shape: [wiped.storage.byte_size] }]);
  // Its session went with the journal; who maps it may be at work.
  expect(await api.get(owned.id)).toMatchObject({ name: "owned", owner: { kind: "ttl", ttl_ms: day }, session: null });
  await checkBooks(server);
  await server.stop();
  checkRows(server.instance);
});

testWith()(
  "what nothing proves has no name and persists by nobody's word: a file without a proof, or without a public name",
  async () => {
    await using server = await startServer();
    server.log.expect(relinked);
    const { api } = server;
    const make = (name: string) => api.create({ name, byte_size: 1000, persist: true });
    const [hidden, torn, whole] = [await make("hidden"), await make("torn"), await make("whole")];
    await server.stop();
    forgetStore(server);
    unlinkSync(hidden.storage.path);
    const proofs = join(server.instance.directory, "proofs");
    const bytes = readFileSync(proofs);
    const fd = openSync(proofs, "r+");
    writeSync(fd, Buffer.from([0xff]), 0, 1, bytes.indexOf(tokenOf(torn.id)));
    closeSync(fd);
    const stray = toToken("stray");
    const strayFd = openSync(join(server.instance.keep, stray), "w", 0o660);
    writeSync(strayFd, withMetadata({ "tensord.name": "stray" }));
    closeSync(strayFd);
    await server.start();
    for (const id of [hidden.id, torn.id, `reg_${stray}`]) checkUnproven(await api.get(id));
    expect(await api.get(whole.id)).toMatchObject({ name: "whole", owner: { kind: "persist" } });
    for (const name of ["hidden", "torn", "stray"]) expect(await api.findByName(name)).toBeUndefined();
    // By now each has its public name, and its proof says that it has no other: the next loss changes nothing.
    await server.kill("SIGKILL");
    forgetStore(server);
    await server.start();
    for (const id of [hidden.id, torn.id]) checkUnproven(await api.get(id));
    expect((await api.findByName("whole"))?.id).toBe(whole.id);
    await checkBooks(server);
  },
);

testWith()("with the proofs lost as well nobody has a name, and all bytes are there", async () => {
  await using server = await startServer();
  const { api } = server;
  const region = await api.create({ name: "mine", byte_size: 1000, persist: true });
  writeContent(region, 3);
  const content = readContent(region.storage.path);
  await server.stop();
  forgetStore(server);
  unlinkSync(join(server.instance.directory, "proofs"));
  await server.start();
  checkUnproven(await api.get(region.id));
  expect(readContent(region.storage.path)).toEqual(content);
  expect((await api.create({ name: "mine", byte_size: 1, persist: true })).state).toBe("open");
  await checkBooks(server);
});

testWith()("a change of the owner outlives the journal, and its log", async () => {
  for (const lose of [forgetStore, loseLog]) {
    await using server = await startServer();
    const { api } = server;
    const make = (name: string) => api.create({ name, byte_size: 1000, persist: true });
    const [toTtl, toLinger, same] = [await make("to-ttl"), await make("to-linger"), await make("same")];
    await server.stop();
    await server.start();
    const ttl = await api.call<Region>("PATCH", `/v1/regions/${toTtl.id}`, { ttl_ms: hour });
    await api.call("PATCH", `/v1/regions/${toLinger.id}`, { linger_ms: hour });
    await api.call("PATCH", `/v1/regions/${same.id}`, { labels: { a: "1" } });
    await server.kill("SIGKILL");
    lose(server);
    await server.start();
    expect(await api.get(toTtl.id)).toMatchObject({ owner: { kind: "ttl", ttl_ms: hour }, expires_at: ttl.expires_at });
    expect(await api.get(toLinger.id)).toMatchObject({ owner: { kind: "linger", linger_ms: hour } });
    expect(await api.get(same.id)).toMatchObject({ owner: { kind: "persist" }, name: "same" });
    await checkBooks(server);
    await server.stop();
    checkRows(server.instance);
  }
});

testWith()("of two regions with a proof of one name the later has it, once it was to be sealed", async () => {
  for (const step of ["seal.begun", "seal.writers-asked", "seal.replaced-journaled", "proof.renewed"] as const) {
    await using server = await startServer();
    server.log.expect(relinked);
    const { api } = server;
    const make = () => api.create({ name: "x", byte_size: 1000, persist: true, if_exists: "replace" });
    const old = await make();
    await api.seal(old.id);
    const next = await make();
    await server.crash({ step });
    await api.seal(next.id).catch(() => {});
    await server.exited();
    forgetStore(server);
    await server.start();
    // Until the seal is proved nobody was told of it.
    const isTaken = step === "proof.renewed";
    expect((await api.findByName("x"))?.id).toBe(isTaken ? next.id : old.id);
    if (isTaken) checkUnproven(await api.get(old.id));
    else expect(await api.get(next.id)).toMatchObject({ name: null, pending_name: "x", owner: { kind: "persist" } });
    await checkBooks(server);
    await server.stop();
    checkRows(server.instance);
  }
});

for (const step of ["seal.mode-set", "seal.hashed", "seal.replaced-journaled"] as const) {
  testWith()(`a group whose seal was cut after ${step} comes back without the store as it was, all of it`, async () => {
    await using server = await startServer();
    server.log.expect(relinked);
    const { api } = server;
    const make = (version: string) =>
      api.create({ name: "x", version, byte_size: 1000, persist: true, if_exists: "replace" });
    const sealAll = (group: readonly Region[]) =>
      api.call("POST", "/v1/seal", { regions: group.map(({ id }) => ({ region: id })) });
    const old = [await make("a"), await make("b")];
    await sealAll(old);
    const next = [await make("a"), await make("b")];
    await server.crash({ step });
    await sealAll(next).catch(() => {});
    await server.exited();
    forgetStore(server);
    await server.start();
    for (const { id } of old) expect(await api.get(id)).toMatchObject({ state: "sealed", name: "x" });
    for (const { id } of next) expect(await api.get(id)).toMatchObject({ state: "open", pending_name: "x" });
    await sealAll(next);
    for (const { id } of next) expect(await api.get(id)).toMatchObject({ state: "sealed", name: "x" });
    await checkBooks(server);
  });
}

testWith(needsPython)(
  "what was replaced while somebody maps it does not take the name back from a log that is lost",
  async () => {
    await using server = await startServer();
    await using worker = new WorkerProcess();
    server.log.expect(adopted, relinked);
    const { api } = server;
    const make = () => api.create({ name: "x", byte_size: 1000, persist: true, if_exists: "replace" });
    const old = await api.seal((await make()).id);
    await worker.attach("r", old);
    await server.stop();
    await server.start();
    const next = await api.seal((await make()).id);
    expect(await api.get(old.id)).toMatchObject({ state: "draining" });
    expect(readProofs(server.instance), "what drains is proved no more").toMatchObject([{ token: tokenOf(next.id) }]);
    await server.kill("SIGKILL");
    loseLog(server);
    await server.start();
    expect((await api.findByName("x"))?.id).toBe(next.id);
    expect(await api.get(old.id)).toMatchObject({ name: null, owner: { kind: "ttl", ttl_ms: day }, in_use: true });
    await checkBooks(server);
  },
);

testWith()(
  "the first start that finds no proofs gives one to every region, and one that others could write gives up its",
  async () => {
    await using server = await startServer();
    server.log.expect(/^The proofs of names are not believed, and are written anew: others could write it/);
    const { api } = server;
    const region = await api.create({ name: "older", byte_size: 1000, linger_ms: hour });
    const proofs = join(server.instance.directory, "proofs");
    for (const spoil of [() => unlinkSync(proofs), () => Bun.spawnSync(["chmod", "622", proofs])]) {
      await server.stop();
      spoil();
      await server.start();
      expect(readProofs(server.instance)).toMatchObject([{ name: "older", owner: { kind: "linger", lingerMs: hour } }]);
      expect(statSync(proofs).mode & 0o777).toBe(0o600);
    }
    await until("the log says so", () => server.log.find(/^The proofs of names are not believed/));
    await server.stop();
    forgetStore(server);
    await server.start();
    expect(await api.findByName("older")).toMatchObject({ id: region.id, owner: { kind: "linger", linger_ms: hour } });
    expect(readMetadata(await api.get(region.id))["tensord.name"]).toBe("older");
  },
);
