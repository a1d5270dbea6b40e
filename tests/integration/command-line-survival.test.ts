/** What survives what, as docs/operating.md tells it by owner, seen with `tensord ls` after each end. */

import { afterAll, expect } from "bun:test";
import { assertNothingLeft } from "../harness/instance.ts";
import { needsPython, root, testWith } from "../harness/instance-needs.ts";
import { findSession, holdSession, longTtlMs, openSession } from "../harness/instance-sessions.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import type { Region } from "../harness/server-api.ts";
import { until } from "../harness/server-wait.ts";
import { WorkerProcess } from "../harness/worker.ts";

afterAll(assertNothingLeft);

/** One region for each owner, named after it, and a second one of the session that is sealed. */
async function createOwned(server: TestServer, session: string) {
  const create = async (name: string, owner: object) => await server.api.create({ name, byte_size: 1, ...owner });
  await create("session", { session });
  const shared = await create("session-sealed", { session });
  await create("ttl", { ttl_ms: longTtlMs });
  await create("linger", { linger_ms: longTtlMs });
  await create("persist", { persist: true });
  return await server.api.seal(shared.id);
}

async function names(server: TestServer, ...flags: string[]): Promise<string[]> {
  const { stdout } = await server.command("ls", "--sort", "name", "--json", ...flags);
  return (JSON.parse(stdout) as Region[]).map(({ name }) => name ?? "-");
}

const outliving = ["linger", "persist", "ttl"];
const all = [...outliving, "session", "session-sealed"].toSorted();

/** What has ended is gone a turn or more later. */
async function untilLeft(server: TestServer, wanted: readonly string[]): Promise<void> {
  await until("the others are gone", async () => (await server.api.list()).length === wanted.length);
  expect(await names(server)).toEqual(wanted.toSorted());
}

/** A process that holds the session, and is nothing else. */
async function startHolder(server: TestServer, session: string) {
  const url = `ws+unix://${server.instance.socket}:/v1/sessions/${session}/hold`;
  const child = Bun.spawn([process.execPath, "-e", `new WebSocket(${JSON.stringify(url)})`], { cwd: root });
  await until("the session is held", async () => (await findSession(server.api, session))?.held === true);
  return child;
}

testWith(needsPython)(
  "a worker's SIGKILL ends at once what its session owns, but what is sealed and mapped only with its last mapping",
  async () => {
    await using server = await startServer();
    const session = await openSession(server.api);
    await using reader = new WorkerProcess();
    await reader.attach("r", await createOwned(server, session.id));
    const worker = await startHolder(server, session.id);
    expect(await names(server)).toEqual(all);
    worker.kill("SIGKILL");
    await until("the session has ended", async () => (await findSession(server.api, session.id)) === undefined);
    await untilLeft(server, [...outliving, "session-sealed"]);
    expect((await server.command("ls")).stdout).toMatch(/ session-sealed .+ session, over /);
    await reader.detach("r");
    await until("its last mapping ended it", async () => (await server.api.findByName("session-sealed")) === undefined);
    await untilLeft(server, outliving);
  },
);

for (const signal of ["SIGKILL", "SIGTERM"] as const) {
  testWith()(`the server's ${signal} and its next start end nothing, and a session's TTL begins anew`, async () => {
    await using server = await startServer();
    const session = await openSession(server.api);
    const worker = await startHolder(server, session.id);
    await createOwned(server, session.id);
    await server.kill(signal);
    expect(await names(server, "--offline")).toEqual(all);
    const startedAt = Date.now();
    await server.start();
    expect(await names(server)).toEqual(all);
    const found = await findSession(server.api, session.id);
    expect(found?.held).toBeFalse();
    expect(Date.parse(found?.expires_at ?? "")).toBeGreaterThanOrEqual(startedAt + longTtlMs);
    worker.kill("SIGKILL");
    await worker.exited;
  });

  testWith()(`a session whose worker is not back within its TTL after the server's ${signal} ends then`, async () => {
    await using server = await startServer();
    const session = await openSession(server.api, { ttl_ms: 1000 });
    await holdSession(server, session.id);
    await createOwned(server, session.id);
    await server.kill(signal);
    await server.start();
    await until("its TTL is over", async () => (await findSession(server.api, session.id)) === undefined);
    await untilLeft(server, outliving);
  });
}

testWith()("purge ends everything, whatever owns it", async () => {
  await using server = await startServer();
  const session = await openSession(server.api);
  await createOwned(server, session.id);
  await server.stop();
  expect((await server.command("purge")).stdout).toStartWith("purged 5 regions, ");
  await server.start();
  expect(await names(server)).toEqual([]);
  expect(await findSession(server.api, session.id)).toBeUndefined();
});
