/**
 * The server killed while real processes map regions in `memfd` storage: at each step of a start, and at random under load. Every
 * region is back with its bytes and its seals, and the processes notice nothing. Where the fd holder dies too, it is as the
 * documents say.
 */

import { afterAll, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { assertNothingLeft } from "../harness/instance.ts";
import { checkRows } from "../harness/instance-check.ts";
import { readMemfd, writeMemfd } from "../harness/instance-memfd.ts";
import { needsPython, testWith } from "../harness/instance-needs.ts";
import { Random } from "../harness/instance-random.ts";
import { memfdPath } from "../harness/memfd.ts";
import { deadlineMsOf, roundsOf } from "../harness/rounds.ts";
import { type KillPoint, startServer, type TestServer } from "../harness/server.ts";
import { NoAnswer, type Region, type ServerApi } from "../harness/server-api.ts";
import { until } from "../harness/server-wait.ts";
import { WorkerProcess } from "../harness/worker.ts";
import { at } from "./scenario.ts";

afterAll(assertNothingLeft);

const rounds = roundsOf("memfd-crash");

interface Finding {
  readonly check: string;
  readonly status: string;
  readonly summary: string;
  readonly cure: string | null;
}

/** What doctor says of the fd holder, and its process if one is named. */
async function look(api: ServerApi): Promise<Finding & { readonly pid: number }> {
  const { findings } = await api.call<{ findings: Finding[] }>("GET", "/v1/doctor");
  const finding = findings.find(({ check }) => check === "fd-holder");
  if (finding === undefined) throw new Error("doctor says nothing of the fd holder");
  return { ...finding, pid: Number(/pid (\d+)/.exec(finding.summary)?.[1]) };
}

/** The fd holder with so many descriptors. */
function untilItHas(count: number, { api }: TestServer, others: readonly number[] = []) {
  return until(`an fd holder has ${count}`, async () => {
    const finding = await look(api);
    return finding.summary.includes(`keeps ${count} descriptor`) && !others.includes(finding.pid) && finding;
  });
}

async function untilEnded(pid: number): Promise<void> {
  await until(`process ${pid} has ended`, () => {
    try {
      return /^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
    } catch {
      return true;
    }
  });
}

async function lost(api: ServerApi): Promise<unknown[]> {
  const { items } = await api.call<{
    items: { type: string; data: { id: string; cause: string; former_name: string } }[];
  }>("GET", "/v1/events");
  return items.flatMap(({ type, data }) =>
    type === "tensord.region.lost" ? [{ id: data.id, cause: data.cause, name: data.former_name }] : [],
  );
}

const create = (api: ServerApi, name: string, byteSize = 100_000) =>
  api.create({ name, storage: "memfd", byte_size: byteSize, persist: true });

testWith(needsPython)(
  "regions that processes map are back after a crash, and after one at each step of the start",
  async () => {
    await using server = await startServer();
    await using worker = new WorkerProcess();
    const open = await create(server.api, "open");
    const sealed = await create(server.api, "sealed", 3_000_000);
    const draining = await create(server.api, "draining");
    for (const [seed, region] of [open, sealed, draining].entries()) writeMemfd(region, server, seed);
    await server.api.seal(sealed.id, { checksum: true });
    for (const region of [open, sealed, draining]) {
      const access = region === open ? "write" : "read";
      await worker.attachThrough(region.id, memfdPath(region, server.pid), region, access);
    }
    await server.api.delete(draining.id);
    const regions = [open, sealed, draining];
    const before = regions.map((region) => readMemfd(region, server));
    const digests = await Promise.all(regions.map(({ id }) => worker.digest(id)));
    const { pid } = await untilItHas(3, server);

    await server.kill("SIGKILL");
    for (const kill of at("holder.lock-sent", "holder.owned") as KillPoint[]) {
      server.spawn(kill);
      expect(await server.exited(), `it dies at its start, after ${kill.step}`).toBe("SIGKILL");
    }
    await server.start();
    expect((await untilItHas(3, server)).pid, "the fd holder is the same").toBe(pid);
    expect(regions.map((region) => readMemfd(region, server))).toEqual(before);
    expect(before.map(({ seals }) => seals.join())).toEqual(["shrink,grow", "shrink,grow,write", "shrink,grow"]);
    expect(await Promise.all(regions.map(({ id }) => worker.digest(id)))).toEqual(digests);
    expect(await server.api.get(open.id)).toMatchObject({ state: "open", in_use: true, has_writers: true });
    expect(await server.api.get(sealed.id)).toMatchObject({ state: "sealed", in_use: true });
    expect(await server.api.get(draining.id)).toMatchObject({ state: "draining" });
    expect((await server.api.verify(sealed.id)).ok).toBeTrue();
    await worker.write(open.id, 50_000, 100, 7);
    expect(readMemfd(open, server).hash, "it is the same memory, still").not.toBe(before[0]?.hash);
    await worker.detach(draining.id);
    await server.api.untilGone(draining.id);
    expect((await server.api.delete(sealed.id)).state).toBe("draining");
    await worker.detach(sealed.id);
    await server.api.untilGone(sealed.id);
    await untilItHas(1, server);
  },
);

testWith(needsPython)(
  `an instance with memfd regions survives ${rounds} kills at random times under load`,
  async () => {
    const random = new Random();
    console.log(`TEST_SEED=${random.seed}`);
    await using server = await startServer();
    await using worker = new WorkerProcess();
    const mapped = await create(server.api, "mapped");
    writeMemfd(mapped, server, 1);
    await worker.attachThrough("mapped", memfdPath(mapped, server.pid), mapped);
    const digest = await worker.digest("mapped");
    const loads = Array.from(
      { length: 3 },
      (_, index) => new Load(`c${index}`, new Random(random.integer(0, 2 ** 31))),
    );
    const counts = { kills: 0, restored: 0 };
    while (counts.kills < rounds) {
      const working = Promise.all(loads.map((load) => load.work(server)));
      const enough = acknowledged(loads) + random.integer(1, 20);
      await until("some requests are answered", () => acknowledged(loads) >= enough);
      await server.kill("SIGKILL");
      await working;
      counts.kills += 1;
      await server.start();
      for (const load of loads) counts.restored += await load.check(server);
      expect(readMemfd(mapped, server).ino).toBe(mapped.storage.ino);
      expect(await worker.digest("mapped")).toBe(digest);
      expect(await server.api.get(mapped.id)).toMatchObject({ state: "open", in_use: true });
      const known = [mapped.id, ...loads.flatMap((load) => load.ids)];
      const orphans = (await server.api.list()).filter(({ id, state }) => state !== "draining" && !known.includes(id));
      expect(
        orphans.map(({ name }) => name),
        "what was never answered has its name, or is gone",
      ).toEqual([]);
      await untilItHas(known.length, server);
      expect(await lost(server.api)).toEqual([]);
    }
    console.log(JSON.stringify(counts));
    expect(counts.restored).toBeGreaterThan(0);
    await server.stop();
    checkRows(server.instance);
  },
  deadlineMsOf(rounds, 10_000),
);

async function isAnswering({ isRunning, api }: TestServer): Promise<boolean> {
  return (
    isRunning &&
    (await api.request("GET", "/livez").then(
      () => true,
      () => false,
    ))
  );
}

function acknowledged(loads: readonly Load[]): number {
  return loads.reduce((sum, load) => sum + load.acknowledged, 0);
}

/** Creates, fills, seals and deletes regions of its own, one request after the other, until the server is gone. */
class Load {
  readonly #prefix: string;
  readonly #random: Random;
  /** As they were acknowledged. */
  readonly #regions = new Map<string, { readonly region: Region; readonly hash: string; isSealed: boolean }>();
  #count = 0;
  /** Answers that it got. */
  acknowledged = 0;
  /** What was asked for without an answer. */
  #asked: { readonly name?: string; readonly sealed?: string; readonly deleted?: string } = {};

  constructor(prefix: string, random: Random) {
    this.#prefix = prefix;
    this.#random = random;
  }

  get ids(): string[] {
    return [...this.#regions.keys()];
  }

  async work(server: TestServer): Promise<void> {
    try {
      for (;;) await this.#act(server);
    } catch (error) {
      // Of a process that was killed a moment ago nobody can read a descriptor, before it is known to have ended.
      if (!(error instanceof NoAnswer) && (await isAnswering(server))) throw error;
    }
  }

  async #act(server: TestServer): Promise<void> {
    const { api } = server;
    const [id] = this.#random.isTrue(0.5) ? this.ids : [];
    const known = id === undefined ? undefined : this.#regions.get(id);
    if (id === undefined || known === undefined) {
      this.#count += 1;
      const name = `${this.#prefix}-${this.#count}`;
      this.#asked = { name };
      const region = await create(api, name, this.#random.integer(1, 50_000));
      this.#regions.set(region.id, { region, hash: readMemfd(region, server).hash, isSealed: false });
    } else if (!known.isSealed) {
      this.#asked = { sealed: id };
      await api.seal(id, { checksum: true });
      known.isSealed = true;
    } else {
      this.#asked = { deleted: id };
      await api.delete(id);
      this.#regions.delete(id);
    }
    this.#asked = {};
    this.acknowledged += 1;
  }

  /** @returns how many were acknowledged, and are there. */
  async check(server: TestServer): Promise<number> {
    const { api } = server;
    const { name, sealed, deleted } = this.#asked;
    const found = name === undefined ? undefined : await api.findByName(name);
    if (found !== undefined) {
      this.#regions.set(found.id, { region: found, hash: readMemfd(found, server).hash, isSealed: false });
    }
    if (deleted !== undefined && (await api.find(deleted))?.state !== "sealed") {
      await api.untilGone(deleted);
      this.#regions.delete(deleted);
    }
    for (const [id, known] of this.#regions) {
      const now = await api.get(id);
      if (id === sealed && now.state === "sealed") known.isSealed = true;
      expect(now.state, id).toBe(known.isSealed ? "sealed" : "open");
      const { ino, hash, seals } = readMemfd(known.region, server);
      expect({ ino, hash }, id).toEqual({ ino: known.region.storage.ino, hash: known.hash });
      if (known.isSealed) expect(seals, id).toContain("write");
      if (known.isSealed) expect((await api.verify(id)).ok, id).toBeTrue();
    }
    return this.#regions.size;
  }
}

test("an fd holder that is killed takes nothing along while the server lives, and its successor outlives a crash", async () => {
  await using server = await startServer();
  server.log.expect(/^The fd holder, process \d+, ended; a new one is started for 2 descriptors$/);
  const regions = [await create(server.api, "one"), await create(server.api, "two")];
  for (const [seed, region] of regions.entries()) writeMemfd(region, server, seed);
  const before = regions.map((region) => readMemfd(region, server));
  const { pid } = await untilItHas(2, server);
  process.kill(pid, "SIGKILL");
  await untilItHas(2, server, [pid]);
  expect(regions.map((region) => readMemfd(region, server))).toEqual(before);
  await server.crash();
  expect(regions.map((region) => readMemfd(region, server))).toEqual(before);
});

test("where server and fd holder both die the regions are lost, and each is told of", async () => {
  await using server = await startServer();
  server.log.expect(/^tensord\.region\.lost$/);
  const named = await create(server.api, "named");
  const kept = await server.api.create({ name: "kept", byte_size: 100, persist: true });
  const { pid } = await untilItHas(1, server);
  // Or it would start another.
  server.signal("SIGSTOP");
  process.kill(pid, "SIGKILL");
  await server.kill("SIGKILL");
  await server.start();
  expect(await lost(server.api)).toEqual([{ id: named.id, cause: "not-kept", name: "named" }]);
  expect((await server.api.get(kept.id)).state).toBe("open");
  const { detail } = await server.api.problem("GET", `/v1/regions/${named.id}`);
  expect(detail).toContain("nobody held its memory while no server ran");
  expect((await create(server.api, "named")).id).not.toBe(named.id);
});

test("a server that comes too late finds nothing, and tells of it", async () => {
  await using server = await startServer({ env: { TENSORD_HOLDER_TTL_MS: "1000" } });
  server.log.expect(/^tensord\.region\.lost$/);
  const region = await create(server.api, "late");
  const { pid } = await untilItHas(1, server);
  await server.kill("SIGKILL");
  await untilEnded(pid);
  await server.start();
  expect(await lost(server.api)).toEqual([{ id: region.id, cause: "not-kept", name: "late" }]);
});

test("a start that gets no answer of the fd holder fails and names it, and takes nothing for lost", async () => {
  await using server = await startServer();
  const region = await create(server.api, "patient");
  const { pid } = await untilItHas(1, server);
  await server.kill("SIGKILL");
  process.kill(pid, "SIGSTOP");
  server.spawn();
  expect(await server.exited()).toBe(1);
  expect(server.log.errors).toContain(`Cannot reach the fd holder: process ${pid} did not answer in time`);
  expect(server.log.errors).toContain(`kill -CONT ${pid}`);
  server.log.errors = "";
  process.kill(pid, "SIGCONT");
  await server.start();
  expect((await server.api.get(region.id)).state).toBe("open");
  expect(await lost(server.api)).toEqual([]);
});

test("an orderly stop leaves memfd regions to the next start, to ls --offline and doctor, and purge takes them", async () => {
  await using server = await startServer();
  const region = await create(server.api, "here");
  const { pid } = await untilItHas(1, server);
  await server.stop();
  for (let looks = 0; looks < 2; looks++) {
    const listed = await server.command("ls", "--offline", "--json");
    expect(JSON.parse(listed.stdout)).toMatchObject([{ id: region.id, state: "open", storage: { kind: "memfd" } }]);
  }
  const { stdout } = await server.command("doctor", "--json");
  const { findings } = JSON.parse(stdout) as { findings: Finding[] };
  expect(findings.find(({ check }) => check === "fd-holder")).toMatchObject({
    status: "warning",
    summary: expect.stringContaining(`pid ${pid}, keeps 1 descriptor`),
  });
  const dry = await server.command("purge", "--dry-run", "--json");
  expect(JSON.parse(dry.stdout)).toMatchObject({ regions: 1, freed_bytes: region.storage.byte_size });
  await server.start();
  expect((await server.api.get(region.id)).state).toBe("open");
  expect((await look(server.api)).pid).toBe(pid);
  await server.stop();
  const purged = await server.command("purge", "--json");
  expect(JSON.parse(purged.stdout)).toMatchObject({ regions: 1, freed_bytes: region.storage.byte_size });
  await untilEnded(pid);
});

test("without a TTL for it no fd holder runs, and memfd regions end with the server, as capabilities say", async () => {
  await using server = await startServer({ env: { TENSORD_HOLDER_TTL_MS: "" } });
  const survives = async () => {
    const { storages } = await server.api.call<{ storages: { kind: string; survives_restart: boolean }[] }>(
      "GET",
      "/v1/capabilities",
    );
    return storages.find(({ kind }) => kind === "memfd")?.survives_restart;
  };
  expect(await survives()).toBeFalse();
  server.log.expect(/^tensord\.region\.lost$/);
  const region = await create(server.api, "gone");
  expect(await look(server.api)).toMatchObject({ status: "ok", summary: expect.stringContaining("No fd holder runs") });
  await server.crash();
  expect(await lost(server.api)).toEqual([{ id: region.id, cause: "not-kept", name: "gone" }]);
});
