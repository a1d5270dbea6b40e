/** Regions without a name on a real server: their bytes pass over HTTP, and what a crash leaves of them is told. */

import { afterAll, expect } from "bun:test";
import { randomBytes } from "node:crypto";
import { readHugeSpace } from "../../src/memory/host/memory-space.ts";
import { targetOf, untilLetGo } from "../harness/data-server.ts";
import { DataSocket } from "../harness/data-socket.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { checkBooks } from "../harness/instance-check.ts";
import { testWith } from "../harness/instance-needs.ts";
import { findMemfd } from "../harness/memfd.ts";
import type { TestServer } from "../harness/server.ts";
import { startServer } from "../harness/server.ts";
import type { Region } from "../harness/server-api.ts";
import { until } from "../harness/server-wait.ts";

const MiB = 2 ** 20;
/** No multiple of a page, and more than is copied. */
const byteSize = 5 * MiB + 4097;

afterAll(assertNothingLeft);

async function upload(server: TestServer, { id }: Region, bytes: Buffer): Promise<void> {
  using socket = new DataSocket(await targetOf(server, "the Unix socket"));
  await socket.ask("PUT", `/v1/regions/${id}/data`, `Content-Length: ${bytes.length}`);
  await socket.send(bytes);
  expect((await socket.answer()).status).toBe(200);
}

async function download(server: TestServer, { id }: Region): Promise<Buffer> {
  // Of huge pages it comes in chunks.
  const response = await fetch(`http://localhost/v1/regions/${id}/data`, { unix: server.instance.socket });
  expect(response.status).toBe(200);
  return Buffer.from(await response.bytes());
}

testWith()("regions without a name pass over sockets, and after a crash what nobody held is told as lost", async () => {
  await using server = await startServer({ env: { TENSORD_HOLDER_TTL_MS: "" } });
  const hidden = await server.api.create({ private: true, name: "hidden", byte_size: byteSize, persist: true });
  const held = await server.api.create({ storage: "memfd", name: "held", byte_size: byteSize, persist: true });
  const bytes = randomBytes(byteSize);
  // Where somebody reserved huge pages.
  const isHuge = readHugeSpace(2 * MiB).freeBytes >= 8 * MiB;
  const huge = { storage: "memfd", huge_pages: "2MiB", name: "huge", byte_size: byteSize, persist: true } as const;
  const more = isHuge ? [await server.api.create(huge)] : [];
  for (const region of [hidden, held, ...more]) {
    await upload(server, region, bytes);
    expect(await server.api.seal(region.id, { checksum: true })).toMatchObject({ state: "sealed" });
    expect((await download(server, region)).equals(bytes)).toBeTrue();
    await untilLetGo(server, region);
  }
  const token = held.id.slice("reg_".length);
  expect(findMemfd(token, server.pid)).toBeDefined();
  await checkBooks(server);

  server.log.expect(/^tensord\.region\.lost$/);
  await server.kill("SIGKILL");
  const { stdout } = await server.command("status", "--offline", "--json");
  expect(JSON.parse(stdout)).toMatchObject({ regions: { sealed: 1 }, lost: 1 + more.length });
  await server.start();
  expect((await download(server, hidden)).equals(bytes)).toBeTrue();
  expect((await server.api.verify(hidden.id)).ok).toBeTrue();
  const told = await until("the loss is logged", () => server.log.find(/^tensord\.region\.lost$/));
  expect(told).toMatchObject({ region: held.id, cause: "not-kept" });
  const { detail } = await server.api.problem("GET", `/v1/regions/${held.id}`);
  expect(detail).toContain("nobody held its memory while no server ran");
  await untilLetGo(server, hidden);
  await checkBooks(server);
});
