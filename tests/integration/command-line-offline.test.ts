/** `tensord ls --offline` and `status --offline`: what they tell of an instance whose server is not running, and that they change nothing. */

import { afterAll, expect } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { OfflineRegion } from "../../src/server/cli/offline.ts";
import { hostOf } from "../../src/server/cli/pools.ts";
import { assertNothingLeft, type Instance, tokenOf } from "../harness/instance.ts";
import { needsPython, testWith } from "../harness/instance-needs.ts";
import { openSession } from "../harness/instance-sessions.ts";
import { startServer, TestServer } from "../harness/server.ts";
import type { RegionDetail } from "../harness/server-api.ts";
import { runTensord } from "../harness/server-command.ts";
import { WorkerProcess } from "../harness/worker.ts";

afterAll(assertNothingLeft);

const hour = 3_600_000;

/** Three regions with different owners and states. */
async function fill(server: TestServer) {
  await server.api.call("POST", "/v1/models", { name: "llama", memory_limit_bytes: 2 ** 24 });
  const session = await openSession(server.api, { client: { name: "trainer", pid: 4711 }, quota_bytes: 2 ** 22 });
  const weights = await server.api.create({
    model: "llama",
    name: "weights",
    tensors: [{ name: "w", dtype: "F32", shape: [256, 3] }],
    persist: true,
    evictable: true,
    labels: { job: "nightly" },
  });
  await server.api.seal(weights.id, { checksum: true });
  const scratch = await server.api.create({ byte_size: 20_000, ttl_ms: hour });
  const own = await server.api.create({ name: "own", byte_size: 1, session: session.id });
  return { session, weights, scratch, own };
}

/** Every file of the folders with its size, inode, time and content. */
function look(instance: Instance): unknown {
  return [instance.store, instance.keep, instance.new].map((folder) =>
    readdirSync(folder).map((name) => {
      const path = join(folder, name);
      const { size, ino, mtimeMs, mode } = statSync(path);
      return { path, size, ino, mtimeMs, mode, hash: Bun.hash(readFileSync(path)) };
    }),
  );
}

/** Runs the command with a temporary directory of its own, in which nothing may be left. */
async function ask(server: TestServer, ...args: string[]) {
  const temporary = mkdtempSync(join(tmpdir(), "tensord-test-"));
  const before = look(server.instance);
  try {
    const result = await runTensord(args, { ...server.env, TMPDIR: temporary });
    expect(readdirSync(temporary)).toEqual([]);
    expect(look(server.instance)).toEqual(before);
    return result;
  } finally {
    rmSync(temporary, { recursive: true });
  }
}

for (const signal of ["SIGKILL", "SIGTERM"] as const) {
  testWith(needsPython)(
    `after ${signal} ls --offline tells each region as the server did, and who is mapped`,
    async () => {
      await using server = await startServer();
      const { weights, scratch, own } = await fill(server);
      await using worker = new WorkerProcess();
      await worker.attach("w", scratch, "write");
      await worker.attach("r", weights);
      const told = await Promise.all([weights, scratch, own].map(({ id }) => server.api.get(id)));
      await server.kill(signal);
      const { status, stdout, stderr } = await ask(server, "ls", "--offline", "--json");
      expect([status, stderr]).toEqual([0, ""]);
      expect(JSON.parse(stdout)).toEqual(told.map(toOffline));
      const text = (await ask(server, "ls", "--offline")).stdout;
      expect(text).toStartWith(`offline: the server of instance ${server.instance.name} is not running\nREGION `);
      expect(text).toMatch(/ OWNER +CREATED +MAPPED$/m);
      const owned = await ask(server, "ls", "--offline", "--json", "--session", own.session ?? "");
      expect((JSON.parse(owned.stdout) as OfflineRegion[]).map(({ id }) => id)).toEqual([own.id]);
      expect(text).toMatch(/ weights +sealed .+ persist, evictable .+ yes$/m);
      expect(text).toMatch(/ default +- +open .+ ttl, \d+ min left .+ for writing$/m);
      expect(text).toMatch(new RegExp(` own +open .+ ${own.owner.session} .+ no$`, "m"));
      const names = async (...flags: string[]) =>
        (JSON.parse((await ask(server, "ls", "--offline", "--json", ...flags)).stdout) as OfflineRegion[]).map(
          ({ name }) => name,
        );
      expect(await names("--sort", "size")).toEqual([null, "own", "weights"].toSorted(bySizeOf(told)));
      expect(await names("--model", "llama")).toEqual(["weights"]);
      expect(await names("--state", "open", "--sort", "name")).toEqual(["own", null]);
      expect(await names("--label", "job=nightly")).toEqual(["weights"]);
      await server.start();
      expect((await server.api.list()).map(({ id }) => id)).toEqual(told.map(({ id }) => id));
    },
  );
}

function toOffline({ last_used_at, leases, holders, unknown_holders, tensors, ...region }: RegionDetail) {
  return region;
}

function bySizeOf(regions: readonly RegionDetail[]) {
  const sizes = new Map(regions.map(({ name, storage }) => [name, storage.byte_size]));
  return (a: string | null, b: string | null) => (sizes.get(b) ?? 0) - (sizes.get(a) ?? 0);
}

testWith(needsPython)("status --offline tells books, models and sessions, and what is mapped", async () => {
  await using server = await startServer();
  const { session, weights, scratch } = await fill(server);
  await using worker = new WorkerProcess();
  await worker.attach("r", weights);
  await worker.attach("s", scratch);
  await server.api.delete(scratch.id);
  const stats = await server.api.stats();
  await server.kill("SIGKILL");
  const { status, stdout } = await ask(server, "status", "--offline");
  expect(status).toBe(0);
  expect(stdout).toStartWith(`instance   ${server.instance.name}, offline: its server is not running\n`);
  expect(stdout).toContain("\nregions    1 sealed, 1 open\nmapped     2 regions\n");
  expect(stdout).toMatch(/^llama +1 +8 KiB +0 B +16 MiB$/m);
  expect(stdout).toMatch(/^default +2 +8 KiB +24 KiB +none$/m);
  expect(stdout).toMatch(
    new RegExp(`^${session.id} +trainer, pid 4711 +1 +8 KiB +4 MiB +3600 s after the next start$`, "m"),
  );
  const json = JSON.parse((await ask(server, "status", "--offline", "--json")).stdout) as Record<string, unknown>;
  expect(json).toMatchObject({
    offline: true,
    instance: server.instance.name,
    pools: [{ pool: "host", used_bytes: hostOf(stats).used_bytes, draining_bytes: hostOf(stats).draining_bytes }],
    journal_bytes: expect.any(Number),
    orphan_bytes: 0,
    regions: { open: 1, sealed: 1, draining: 1 },
    mapped: 2,
    orphans: 0,
    lost: 0,
    session_list: [{ id: session.id, client: { name: "trainer", pid: 4711 }, used_bytes: 8192 }],
  });
});

testWith()("--offline tells what lost its journal, and what lost its file", async () => {
  await using server = await startServer();
  const { weights, own } = await fill(server);
  await server.stop();
  rmSync(join(server.instance.keep, tokenOf(own.id)));
  rmSync(own.storage.path);
  expect((await ask(server, "status", "--offline")).stdout).toContain("\nlost       1 region whose memory is gone\n");
  const stray = join(server.instance.keep, "a".repeat(26));
  writeFileSync(stray, "of a request that was never answered");
  expect((await ask(server, "status", "--offline")).stdout).toContain("without a row, 4 KiB; the next start frees 1\n");
  rmSync(stray);
  rmSync(join(server.instance.store, "tensord.sqlite"));
  const { stdout } = await ask(server, "ls", "--offline");
  expect(stdout).toContain("no regions\norphans    2 regions without a row, 32 KiB; the next start adopts 2");
  await server.start();
  expect((await server.api.list()).map(({ id }) => id)).toContain(weights.id);
});

testWith()("--offline refuses while a server runs, and says what to ask instead", async () => {
  await using server = await startServer();
  for (const args of [
    ["ls", "--offline"],
    ["status", "--offline", "--json"],
  ]) {
    const { status, stdout, stderr } = await server.command(...args);
    expect([status, stdout]).toEqual([1, ""]);
    expect(stderr).toContain(
      `a server runs on it already, pid ${server.pid}\nhint: Ask that server: leave --offline out.`,
    );
  }
});

testWith()("--offline refuses what only a server can tell, and an instance that is not there", async () => {
  await using server = new TestServer();
  for (const [args, says] of [
    [["ls"], `${server.instance.directory} is not there`],
    [["status"], `${server.instance.directory} is not there`],
    [["ls", "--sort", "used"], "Cannot sort by use: only a running server knows it, want size, age or name"],
    [["ls", "--holders"], "cannot be used with option '--holders'"],
    [["ls", "--url", "http://127.0.0.1:1"], "cannot be used with option '--url"],
  ] as const) {
    const { status, stdout, stderr } = await server.command(...args, "--offline");
    expect([status, stdout]).toEqual([1, ""]);
    expect(stderr).toContain(says);
  }
  expect(readdirSync(server.instance.shmDirectory)).not.toContain(`tensord.${server.instance.name}`);
});
