/** Hand-offs over a crash of the server: what is known of their consumers is gone with it, and none is lost for that. */

import { afterAll, expect } from "bun:test";
import { hold, lease } from "../contract/support/lease.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { testWith } from "../harness/instance-needs.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import { until } from "../harness/server-wait.ts";

const hourMs = 3_600_000;

afterAll(assertNothingLeft);

/** When the region of that name ends, in ms since the epoch, as far as is known. A list hands nothing out. */
async function endOf({ api }: TestServer, name: string): Promise<number | undefined> {
  const found = (await api.list()).find((region) => region.name === name);
  return found === undefined ? undefined : Date.parse(found.expires_at ?? "");
}

function untilWaiting(server: TestServer, name: string, since: number): Promise<true> {
  return until(`${name} waits for its consumer`, async () => ((await endOf(server, name)) ?? 0) > since + hourMs);
}

testWith()("a hand-off waits anew after a crash, and its consumer is told from its maker by their bytes", async () => {
  await using server = await startServer();
  const { id, storage } = await server.api.create({ name: "frame", byte_size: 1, linger_ms: 0, handoff_ms: hourMs });
  using _ = hold(storage.path);
  await server.api.seal(id);
  const crashedAt = Date.now();
  await server.crash();
  await untilWaiting(server, "frame", crashedAt);
  {
    using _ = lease(storage.path);
    await until("it is seen", async () => ((await endOf(server, "frame")) ?? 0) < crashedAt + hourMs / 2);
  }
  await until("its name is free", async () => (await endOf(server, "frame")) === undefined);
});

testWith()(
  "whoever held the lease byte of a hand-off over a crash may be its maker, and takes it from nobody",
  async () => {
    await using server = await startServer();
    const { id, storage } = await server.api.create({ name: "frame", byte_size: 1, linger_ms: 0, handoff_ms: hourMs });
    const crashedAt = Date.now();
    {
      using _ = lease(storage.path);
      await server.api.seal(id);
      await server.crash();
      await untilWaiting(server, "frame", crashedAt);
    }
    await until("nobody maps it", async () => !(await server.api.get(id)).in_use);
    expect(await endOf(server, "frame")).toBeGreaterThan(crashedAt + hourMs);
  },
);

testWith()("a hand-off that is still open ends with the session that builds it, over a crash too", async () => {
  await using server = await startServer();
  const { id: session } = await server.api.call<{ id: string }>("POST", "/v1/sessions", { ttl_ms: 86_400_000 });
  await server.api.create({ name: "frame", byte_size: 1, linger_ms: 0, handoff_ms: hourMs, session });
  await server.crash();
  expect(await endOf(server, "frame")).toBeDefined();
  await server.api.call("DELETE", `/v1/sessions/${session}`);
  expect(await endOf(server, "frame")).toBeUndefined();
});
