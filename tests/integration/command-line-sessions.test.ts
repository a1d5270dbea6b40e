/** What the command line tells of sessions: who owns, who holds, whom `rm --wait` waits for, and what happened to them. */

import { afterAll, expect } from "bun:test";
import { linkSync, rmSync } from "node:fs";
import { join } from "node:path";
import { needsPython, testWith } from "../harness/instance-needs.ts";
import { holdSession, longTtlMs, openSession, type Session, takeLease } from "../harness/instance-sessions.ts";
import { endLentServers, lendServer } from "../harness/lent-server.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import type { Region, RegionDetail, Stats } from "../harness/server-api.ts";
import { until } from "../harness/server-wait.ts";
import { WorkerProcess } from "../harness/worker.ts";

afterAll(endLentServers);

const client = { name: "trainer", pid: 4711 };

/** A held session, and its word to the server of what it maps. */
async function hold(server: TestServer) {
  const session = await openSession(server.api, { client });
  const socket = await holdSession(server, session.id);
  async function attach({ id }: Region, writable: boolean): Promise<void> {
    const before = (await server.api.get(id)).holders[0]?.mappings ?? 0;
    socket.send(JSON.stringify({ attach: id, writable }));
    await until("the server heard of it", async () => (await server.api.get(id)).holders[0]?.mappings === before + 1);
  }
  const detach = ({ id }: Region) => socket.send(JSON.stringify({ detach: id }));
  return { session, attach, detach, [Symbol.dispose]: () => socket.close() };
}

testWith()("ls tells what each owner is, who builds under a claim, and what may be evicted", async () => {
  await using server = await lendServer();
  const session = await openSession(server.api, { client });
  const claim = await server.api.call<{ claim: string }>("POST", "/v1/models/default/regions/built/claim", {
    session: session.id,
  });
  await server.api.create({ name: "mine", byte_size: 1, session: session.id });
  await server.api.create({ name: "built", byte_size: 1, linger_ms: 600_000, claim: claim.claim });
  await server.api.create({ name: "kept", byte_size: 1, persist: true, evictable: true });
  const { stdout } = await server.command("ls");
  expect(stdout).toMatch(new RegExp(`^\\S+ +default +mine .+ 1 +${session.id} +\\d+ s ago`, "m"));
  expect(stdout).toMatch(
    new RegExp(`^\\S+ +default +built .+ 1 +linger 10 min, built by ${session.id} +\\d+ s ago`, "m"),
  );
  expect(stdout).toMatch(/^\S+ +default +kept .+ 1 +persist, evictable +\d+ s ago/m);
  const owned = await server.command("ls", "--session", session.id, "--json");
  expect((JSON.parse(owned.stdout) as Region[]).map(({ name }) => name)).toEqual(["mine", "built"]);
  const failed = await server.command("ls", "--session", "ses_gone");
  expect([failed.status, failed.stdout]).toEqual([1, ""]);
  expect(failed.stderr).toContain("Cannot find session");
});

testWith(needsPython)(
  "ls --holders tells who maps each region, and that somebody does who did not say so",
  async () => {
    // Its own: what is leased by request outlives the test.
    await using server = await startServer();
    using holder = await hold(server);
    await using worker = new WorkerProcess();
    const [told, untold, leased] = [
      await server.api.create({ name: "told", byte_size: 1, persist: true }),
      await server.api.create({ name: "untold", byte_size: 1, persist: true }),
      await server.api.create({ name: "leased", byte_size: 1, persist: true }),
    ];
    await server.api.create({ name: "free", byte_size: 1, persist: true });
    await worker.attach("told", told, "write");
    await worker.attach("untold", untold);
    await holder.attach(told, true);
    await holder.attach(told, false);
    await takeLease(server.api, leased.id);
    const { status, stdout, stderr } = await server.command("ls", "--holders");
    expect([status, stderr]).toEqual([0, ""]);
    expect(stdout).toMatch(/ CREATED +HOLDERS$/m);
    expect(stdout).toMatch(/ told .+ trainer, pid 4711 2 times, writing$/m);
    expect(stdout).toMatch(/ untold .+ an unknown process$/m);
    expect(stdout).toMatch(/ leased .+ 1 by request$/m);
    expect(stdout).toMatch(/ free .+ -$/m);
    const json = JSON.parse(
      (await server.command("ls", "--holders", "--json", "--sort", "name")).stdout,
    ) as RegionDetail[];
    expect(json.map(({ name, in_use }) => [name, in_use])).toEqual([
      ["free", false],
      ["leased", true],
      ["told", true],
      ["untold", true],
    ]);
    expect(json[2]?.holders).toMatchObject([{ session: holder.session.id, client, mappings: 2, writable: true }]);
  },
);

testWith()("status shows the sessions that own most first, and --json all of them", async () => {
  await using server = await lendServer();
  using holder = await hold(server);
  const idle = await openSession(server.api, { name: "idle", quota_bytes: 2 ** 20, ttl_ms: longTtlMs });
  await server.api.create({ byte_size: 10_000, session: holder.session.id });
  const { stdout } = await server.command("status");
  expect(stdout).toContain("sessions   2, with 0 claims; 0 leases by request\n");
  expect(stdout).toMatch(
    new RegExp(
      `\\nSESSION .+\\n${holder.session.id} +trainer, pid 4711 +1 +16 KiB +none +held\\n${idle.id} +idle +0 +0 B +1 MiB +in \\d+ min\\n$`,
    ),
  );
  const json = JSON.parse((await server.command("status", "--json")).stdout) as Stats & { session_list: Session[] };
  expect(json.session_list.map(({ id, used_bytes }) => [id, used_bytes])).toEqual([
    [holder.session.id, 16_384],
    [idle.id, 0],
  ]);
  for (let i = 0; i < 10; i++) await openSession(server.api);
  expect((await server.command("status")).stdout).toEndWith("\nand 2 more\n");
});

testWith(needsPython)("rm --wait tells whom it waits for, and ends when the last of them lets go", async () => {
  await using server = await lendServer();
  using holder = await hold(server);
  await using worker = new WorkerProcess();
  const region = await server.api.create({ name: "weights", byte_size: 10_000, persist: true });
  await worker.attach("r", region);
  await holder.attach(region, false);
  let hasEnded = false;
  const command = server.startCommand("rm", "--wait", "weights");
  const ended = command.ended.finally(() => {
    hasEnded = true;
  });
  await until("it tells of whom it waits for", () => command.stderr !== "");
  expect((await server.api.get(region.id)).state).toBe("draining");
  holder.detach(region);
  await until("nobody says that he maps it", async () => (await server.api.get(region.id)).unknown_holders);
  expect(hasEnded).toBeFalse();
  await worker.detach("r");
  const { status, stdout, stderr } = await ended;
  expect([status, stdout]).toEqual([0, "weights: deleted, 16 KiB freed\n"]);
  expect(stderr).toMatch(/^(tensord: weights: waiting for (trainer, pid 4711|an unknown process)\n)+$/);
});

testWith()("rm --wait of what nobody maps says what it freed, at once", async () => {
  await using server = await lendServer();
  await server.api.create({ name: "a", byte_size: 1, persist: true });
  await server.api.create({ name: "b", byte_size: 1, persist: true });
  const { status, stdout, stderr } = await server.command("rm", "--wait", "a", "b");
  expect([status, stdout, stderr]).toEqual([0, "a: deleted, 8 KiB freed\nb: deleted, 8 KiB freed\n", ""]);
});

testWith(needsPython)("rm --timeout gives up, names the client, and its hint finds the process", async () => {
  await using server = await lendServer();
  using holder = await hold(server);
  await using worker = new WorkerProcess();
  const region = await server.api.create({ name: "weights", byte_size: 1, persist: true });
  await server.api.create({ name: "other", byte_size: 1, persist: true });
  await worker.attach("r", region);
  await holder.attach(region, false);
  const { status, stdout, stderr } = await server.command("rm", "weights", "other", "--timeout", "1");
  expect([status, stdout]).toEqual([1, "other: deleted, 8 KiB freed\n"]);
  expect(stderr).toContain("tensord: weights: waiting for trainer, pid 4711\n");
  expect(stderr).toContain(
    "Cannot wait longer for the bytes of weights: trainer, pid 4711 still has them, want nobody",
  );
  expect(await runHint(stderr)).toContain(`/proc/${worker.pid}/maps`);
  expect(stderr).toContain(`wait again with \`tensord rm --wait ${region.id}\``);
  await worker.detach("r");
  await server.api.untilGone(region.id);
});

testWith()("rm --timeout of a region that is linked elsewhere says so, and its hint finds the link", async () => {
  await using server = await lendServer();
  const { storage } = await server.api.create({ name: "weights", byte_size: 1, persist: true });
  const link = join(server.instance.shmDirectory, `foreign-${server.instance.name}`);
  linkSync(storage.path, link);
  try {
    const { status, stderr } = await server.command("rm", "weights", "--timeout", "1s");
    expect(status).toBe(1);
    expect(stderr).toContain("a hard link to its file, outside still has them, want nobody");
    expect(await runHint(stderr)).toBe(`${link}\n`);
  } finally {
    rmSync(link);
  }
});

/** Runs the first command that a hint shows. */
async function runHint(stderr: string): Promise<string> {
  const [, command = ""] = /^hint: .*?`(.+?)`/m.exec(stderr) ?? [];
  return await new Response(Bun.spawn(["sh", "-c", command], { stderr: "ignore" }).stdout).text();
}

testWith()("rm --timeout takes no nonsense", async () => {
  await using server = await lendServer();
  const { id } = await server.api.create({ name: "weights", byte_size: 1, persist: true });
  const { status, stderr } = await server.command("rm", "weights", "--timeout", "soon");
  expect(status).toBe(1);
  expect(stderr).toContain('Cannot read --timeout "soon": it is no number with a unit');
  expect((await server.api.get(id)).state).toBe("open");
});

testWith()("events tells how sessions began and ended and when a pool runs full, and filters by session", async () => {
  await using server = await lendServer();
  await server.api.call("POST", "/v1/models", { name: "small", memory_limit_bytes: 2 ** 20 });
  const session = await openSession(server.api, { client });
  await server.api.create({ model: "small", name: "w", byte_size: 1_000_000, session: session.id });
  await server.api.call("DELETE", `/v1/sessions/${session.id}`);
  const read = async (...flags: string[]) => {
    const { status, stdout, stderr } = await server.command("events", "--no-follow", ...flags);
    expect([status, stderr]).toEqual([0, ""]);
    return stdout;
  };
  const all = await read();
  expect(all).toMatch(new RegExp(`  session\\.opened +${session.id}  trainer, pid 4711$`, "m"));
  expect(all).toMatch(
    new RegExp(`  session\\.ended +${session.id}  trainer, pid 4711  reason request  1 region  \\d+ KiB freed$`, "m"),
  );
  expect(all).toMatch(/ {2}pool\.pressure +high {2}model small {2}9\d\d KiB used of 1 MiB$/m);
  expect(all).toMatch(/ {2}pool\.pressure +normal {2}model small {2}0 B used of 1 MiB$/m);
  const own = await read("--session", session.id);
  expect(own.match(/(region|session|model|pool)\.\w+/g)).toEqual([
    "session.opened",
    "region.allocated",
    "region.draining",
    "region.deleted",
    "session.ended",
  ]);
});
