/** What ends a 4 GiB allocation, or another long piece of work, before its time: signals, a client that hangs up, a DELETE. */

import { afterAll, expect } from "bun:test";
import { readdirSync, statSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { limits } from "../../src/memory/limits.ts";
import { hostOf } from "../../src/server/cli/pools.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { checkBooks, checkRows } from "../harness/instance-check.ts";
import { needsRoom, testWith } from "../harness/instance-needs.ts";
import { takeRoom } from "../harness/instance-room.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import { NoAnswer, type Region } from "../harness/server-api.ts";
import { until, within } from "../harness/server-wait.ts";

const GiB = 2 ** 30;
const byteSize = 4 * GiB;
const needsFour = needsRoom(5 * GiB);
const hour = 3_600_000;
const request = { name: "huge", byte_size: byteSize, ttl_ms: hour };

afterAll(assertNothingLeft);

/** Where a sixteenth of it takes less than this, all of it takes at most a quarter of what a stop gives it. */
const quickMs = (limits.shutdownGraceMs - limits.shutdownUndoMs) / 16 / 4;

/** A stop answers what is under way. Only where its grace was too short for that, on a machine that is slow, it cuts off. */
function checkAnswered(status: number | undefined, wanted: readonly number[], isQuick: boolean, stopMs: number): void {
  if (isQuick || stopMs < limits.shutdownGraceMs) expect(status).toBeOneOf([...wanted]);
}

function toNoAnswer(error: unknown): undefined {
  if (!(error instanceof NoAnswer)) throw error;
}

/** Waits until pages of the creation are there, and some are not yet. */
async function untilHalfway({ instance }: TestServer): Promise<void> {
  await until("the allocation has begun", () =>
    readdirSync(instance.new).some((name) => {
      const allocated = (statSync(join(instance.new, name), { throwIfNoEntry: false })?.blocks ?? 0) * 512;
      return allocated > GiB / 4;
    }),
  );
}

/** Nothing of it is left, in files or in the books, and its name can be used at once. */
async function checkUndone(server: TestServer): Promise<void> {
  expect(readdirSync(server.instance.new)).toEqual([]);
  expect(hostOf(await server.api.stats())).toMatchObject({ used_bytes: 0, draining_bytes: 0 });
  expect(await server.api.findByName("huge")).toBeUndefined();
  const next = await server.api.create({ ...request, byte_size: 1 });
  expect((await server.api.delete(next.id)).state).toBe("deleted");
  await checkBooks(server);
}

testWith(needsFour)("SIGTERM lets it finish or undoes it within the grace, and the start after it agrees", async () => {
  using _room = await takeRoom();
  await using server = await startServer();
  const begun = performance.now();
  const answer = server.api.request<Region>("POST", "/v1/regions", request).catch(toNoAnswer);
  await untilHalfway(server);
  const told = performance.now();
  server.signal("SIGTERM");
  const given = await answer;
  expect(await server.exited()).toBe(0);
  checkAnswered(given?.status, [201, 503], told - begun < quickMs, performance.now() - told);
  checkRows(server.instance);
  await server.start();
  if (given?.status === 201) {
    expect((await server.api.get(given.body.id)).storage.ino).toBe(given.body.storage.ino);
    expect((await server.api.delete(given.body.id)).state).toBe("deleted");
  }
  await checkUndone(server);
});

testWith(needsFour)("SIGKILL leaves only what the next start removes", async () => {
  using _room = await takeRoom();
  await using server = await startServer();
  const answer = server.api.create(request).catch((error: unknown) => error);
  await untilHalfway(server);
  await server.kill("SIGKILL");
  expect(await answer).toBeInstanceOf(NoAnswer);
  expect(readdirSync(server.instance.new)).toHaveLength(1);
  await server.start();
  await checkUndone(server);
});

testWith(needsFour)("a client that hangs up cancels it, gets its charge back and leaves the name free", async () => {
  using _room = await takeRoom();
  await using server = await startServer();
  const socket = await hangingPost(server.instance.socket, request);
  await untilHalfway(server);
  expect(hostOf(await server.api.stats()).used_bytes).toBeGreaterThan(byteSize);
  expect(await server.api.problem("POST", "/v1/regions", { ...request, byte_size: 1 })).toMatchObject({
    code: "name-taken",
  });
  socket.destroy();
  await until("the charge is refunded", async () => hostOf(await server.api.stats()).used_bytes === 0);
  await checkUndone(server);
});

testWith(needsFour)("a DELETE cancels it, and the client that waits for it is told so", async () => {
  using _room = await takeRoom();
  await using server = await startServer();
  const answer = server.api.problem("POST", "/v1/regions", request);
  await untilHalfway(server);
  const [creating] = await server.api.list();
  expect(creating?.state).toBe("creating");
  expect((await server.api.delete(creating?.id ?? "")).state).toBe("deleted");
  expect(await answer).toMatchObject({ status: 409, code: "cancelled" });
  await checkUndone(server);
});

testWith(needsFour)("other requests are answered while it is under way", async () => {
  using _room = await takeRoom();
  await using server = await startServer();
  const answer = server.api.create(request);
  await untilHalfway(server);
  const small = await server.api.create({ name: "small", byte_size: 1000, ttl_ms: hour });
  await server.api.seal(small.id, { checksum: true });
  await server.api.delete(small.id);
  expect((await server.api.stats()).regions.creating, "the large one is still in creation").toBe(1);
  const region = await answer;
  expect(region.state).toBe("open");
  expect(statSync(region.storage.path).blocks * 512).toBeGreaterThanOrEqual(byteSize);
  // Its pages go in the background, too.
  const deletion = server.api.delete(region.id);
  await server.api.stats();
  expect((await deletion).state).toBe("deleted");
  await checkBooks(server);
});

testWith(needsRoom(2 * GiB))(
  "SIGTERM while a checksum is taken answers the seal, and the start after it agrees with the answer",
  async () => {
    using _room = await takeRoom();
    await using server = await startServer();
    const begun = performance.now();
    const region = await server.api.create({ name: "hashed", byte_size: 1.5 * GiB, persist: true });
    const isQuick = performance.now() - begun < 6 * quickMs;
    const path = `/v1/regions/${region.id}/seal`;
    const answer = server.api.request<Region>("POST", path, { checksum: true }).catch(toNoAnswer);
    await until("the seal is under way", async () => (await server.api.get(region.id)).state === "sealing");
    const told = performance.now();
    server.signal("SIGTERM");
    const status = (await answer)?.status;
    expect(await server.exited()).toBe(0);
    checkAnswered(status, [200, 503], isQuick, performance.now() - told);
    await server.start();
    const { state } = await server.api.get(region.id);
    if (status !== undefined) expect(state).toBe(status === 200 ? "sealed" : "open");
    await checkBooks(server);
    expect((await server.api.delete(region.id)).state).toBe("deleted");
  },
);

/** Sends an allocation over a socket that the test can destroy. */
async function hangingPost(path: string, body: unknown): Promise<Socket> {
  const socket = connect(path);
  await within("the socket connects", new Promise((resolve) => socket.once("connect", resolve)));
  const text = JSON.stringify(body);
  const head = ["POST /v1/regions HTTP/1.1", "Host: localhost", "Content-Type: application/json"];
  socket.write(`${[...head, `Content-Length: ${text.length}`].join("\r\n")}\r\n\r\n${text}`);
  return socket;
}
