/** What a process may do beside dying: fork while it maps, stand still, or meddle with names under another uid. */

import { afterAll, expect } from "bun:test";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { assertNothingLeft } from "../harness/instance.ts";
import { checkBooks } from "../harness/instance-check.ts";
import { readContent, writeContent } from "../harness/instance-content.ts";
import { DoomedWorkers } from "../harness/instance-doomed.ts";
import { needsPython, needsRoot, python, root, testWith } from "../harness/instance-needs.ts";
import { claimToBuild, endSession, findSession, openSession, takeLease } from "../harness/instance-sessions.ts";
import { Tmpfs } from "../harness/instance-tmpfs.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import type { ServerApi } from "../harness/server-api.ts";
import { until } from "../harness/server-wait.ts";

const hour = 3_600_000;
const relinked = /^tensord\.region\.relinked$/;

afterAll(assertNothingLeft);

async function findByState({ api }: TestServer) {
  const regions = await api.list();
  return { sealed: regions.find(({ state }) => state === "sealed"), all: regions };
}

testWith(needsPython)(
  "a forked child that has let go of the socket keeps what it maps, and its parent's session ends at once",
  async () => {
    await using server = await startServer();
    await using workers = new DoomedWorkers(server.instance.socket);
    workers.start({ id: 1, role: "forking", seed: 1, keeps_socket: false });
    const [parent, child] = [await workers.untilAt(1, "parent"), await workers.untilAt(1, "child")];
    workers.kill(parent.pid);
    await until(
      "the session has ended",
      async () => (await findSession(server.api, String(parent.session))) === undefined,
    );
    const { sealed, all } = await findByState(server);
    expect(all.map(({ state, name }) => [state, name]).toSorted()).toEqual([
      ["draining", null],
      ["sealed", "sealed"],
    ]);
    expect(sealed, "a sealed region keeps its name while it is mapped").toMatchObject({ session: null });
    workers.kill(child.pid);
    for (const { id } of all) await server.api.untilGone(id);
    await checkBooks(server);
  },
);

testWith(needsPython)(
  "a forked child that has the socket holds its dead parent's session until it dies too",
  async () => {
    await using server = await startServer();
    await using workers = new DoomedWorkers(server.instance.socket);
    workers.start({ id: 1, role: "forking", seed: 1, keeps_socket: true });
    const [parent, child] = [await workers.untilAt(1, "parent"), await workers.untilAt(1, "child")];
    workers.kill(parent.pid);
    await untilTtlIsOver(server, 1000);
    expect(await findSession(server.api, String(parent.session))).toMatchObject({ held: true, regions: 2 });
    workers.kill(child.pid);
    await until(
      "the session has ended",
      async () => (await findSession(server.api, String(parent.session))) === undefined,
    );
    await until("its regions are gone", async () => (await server.api.list()).length === 0);
    await checkBooks(server);
  },
);

testWith(needsPython)(
  "a worker that stands still for longer than its TTL keeps its held session and all of it",
  async () => {
    await using server = await startServer();
    await using workers = new DoomedWorkers(server.instance.socket);
    const unheld = await openSession(server.api, { ttl_ms: 1000 });
    workers.start({ id: 1, role: "sealed", seed: 1 });
    workers.start({ id: 2, role: "filling", seed: 2 });
    const stopped = [await workers.untilAt(1, "sealed"), await workers.untilAt(2, "filling")];
    for (const { pid } of stopped) process.kill(pid, "SIGSTOP");
    const before = await server.api.list();
    await untilTtlIsOver(server, 1000);
    expect(await findSession(server.api, unheld.id), "one that is not held has ended meanwhile").toBeUndefined();
    for (const { session } of stopped)
      expect(await findSession(server.api, String(session))).toMatchObject({ held: true });
    expect((await server.api.list()).map(({ id }) => id)).toEqual(before.map(({ id }) => id));
    // SIGKILL takes a process that stands still, too.
    for (const { pid } of stopped) workers.kill(pid);
    const kept = String(stopped[0]?.kept);
    await until("only what outlives its session is left", async () => {
      const left = await server.api.list();
      return left.length === 1 && left[0]?.id === kept;
    });
    await checkBooks(server);
  },
);

/** Waits until a session of the same TTL, opened now and renewed by nobody, has ended. */
async function untilTtlIsOver({ api }: TestServer, ttlMs: number): Promise<void> {
  const { id } = await openSession(api, { ttl_ms: ttlMs });
  await until("a TTL is over", async () => (await findSession(api, id)) === undefined);
}

/** Another uid's process that unlinks, renames and squats on the instance's names for as long as it lives. */
class Meddler implements AsyncDisposable {
  readonly #process: Bun.Subprocess<"ignore", "pipe", "inherit">;
  readonly #output: Promise<string>;

  constructor({ instance }: TestServer) {
    const script = join(root, "tests/faults/workers/meddler.py");
    const command = [python ?? "python3", script, "65534", instance.shmDirectory, instance.name];
    this.#process = Bun.spawn(command, { stdin: "ignore", stdout: "pipe", stderr: "inherit" });
    this.#output = this.#process.stdout.text();
  }

  /** SIGTERM. @returns what it did, by name. */
  async stop(): Promise<Record<string, number>> {
    this.#process.kill("SIGTERM");
    await this.#process.exited;
    return JSON.parse(await this.#output) as Record<string, number>;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill("SIGKILL");
    await this.#process.exited;
  }
}

testWith(needsPython, needsRoot)(
  "another uid that unlinks, renames and takes names keeps no session from ending whole, and loses no region",
  async () => {
    using tmpfs = new Tmpfs({ sizeBytes: 64 * 2 ** 20, mode: "0777" });
    await using server = await startServer({ shmDirectory: tmpfs.path });
    server.log.expect(relinked, /^Cannot bring the name of .+ back/, /^Cannot look after the name/);
    const { api } = server;
    const stays = await api.create({ name: "stays", byte_size: 50_000, persist: true });
    writeContent(stays, 1);
    await api.seal(stays.id, { checksum: true });
    const { ino, hash } = readContent(join(server.instance.keep, stays.id.slice("reg_".length)));
    await using meddler = new Meddler(server);
    await until("the meddler has often been at it", async () => {
      await liveOnce(api, stays.id);
      return server.log.lines.filter(({ msg }) => relinked.test(msg)).length >= 40;
    });
    const done = await meddler.stop();
    console.log(JSON.stringify(done));
    for (const what of ["unlinked", "renamed", "squatted"]) expect(done[what], what).toBeGreaterThan(10);
    // A name that is lost twice within a millisecond may escape the watch; asking for the region mends it.
    expect((await api.get(stays.id)).state).toBe("sealed");
    expect(readContent(stays.storage.path)).toMatchObject({ ino, hash });
    expect((await api.verify(stays.id)).ok).toBeTrue();
    // What it made and moved is its own to tidy up: the server touched none of it.
    for (const name of tmpfs.names().filter((name) => name.startsWith("meddler"))) rmSync(join(tmpfs.path, name));
    await checkBooks(server);
  },
);

/** One session from its opening to its end, with all that it may have. */
async function liveOnce(api: ServerApi, leased: string): Promise<void> {
  const session = await openSession(api);
  const claim = await claimToBuild(api, "built", session.id);
  const regions = [
    await api.create({ name: "built", byte_size: 10_000, linger_ms: hour, claim }),
    await api.create({ byte_size: 20_000, session: session.id }),
  ];
  await takeLease(api, leased, session.id);
  expect(await endSession(api, session.id)).toMatchObject({ regions: 2 });
  for (const { id } of regions) await api.untilGone(id);
}
