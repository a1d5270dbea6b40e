/** The HTTP data plane when a side goes away: clients that vanish, stall or lie, regions that are deleted, servers that end. */

import { afterAll, describe, expect } from "bun:test";
import { randomBytes } from "node:crypto";
import { statSync, truncateSync } from "node:fs";
import { limits } from "../../src/memory/limits.ts";
import { hostOf } from "../../src/server/cli/pools.ts";
import {
  beginDownload,
  beginUpload,
  countRegionFiles,
  lendDataServer,
  measureGrowth,
  targetOf,
  transports,
  untilLetGo,
} from "../harness/data-server.ts";
import { DataSocket } from "../harness/data-socket.ts";
import { checkBooks } from "../harness/instance-check.ts";
import { exists, writeContent } from "../harness/instance-content.ts";
import { testWith } from "../harness/instance-needs.ts";
import { endLentServers } from "../harness/lent-server.ts";
import type { TestServer } from "../harness/server.ts";
import type { Region } from "../harness/server-api.ts";
import { until } from "../harness/server-wait.ts";

const MiB = 2 ** 20;
const hour = 3_600_000;
const byteSize = 64 * MiB;
const some = randomBytes(100_000);

afterAll(endLentServers);

function createLarge(server: TestServer): Promise<Region> {
  return server.api.create({ byte_size: byteSize, ttl_ms: hour });
}

const dataOf = ({ id }: Region) => `/v1/regions/${id}/data`;

/** The connection can be used on, and what comes next answers what is asked next. */
async function expectInStep(socket: DataSocket): Promise<void> {
  expect(socket.waitingBytes).toBe(0);
  await socket.ask("GET", "/livez");
  const { status, body } = await socket.answer();
  expect({ status, body: JSON.parse(body.toString()) }).toEqual({ status: 200, body: { status: "ok" } });
  expect(socket.waitingBytes).toBe(0);
}

async function expectRefusal(socket: DataSocket, status: number, code: string, deadlineMs?: number): Promise<void> {
  const answer = await socket.answer(deadlineMs);
  expect({ status: answer.status, type: answer.headers.get("content-type") }).toEqual({
    status,
    type: "application/problem+json",
  });
  expect(JSON.parse(answer.body.toString())).toMatchObject({ code, status });
}

for (const transport of transports) {
  describe(`over ${transport}`, () => {
    testWith()("a client that vanishes takes its lease and its writer with it", async () => {
      await using server = await lendDataServer();
      const target = await targetOf(server, transport);
      const region = await createLarge(server);
      const download = await beginDownload(target, region);
      const upload = await beginUpload(server, target, region, some);
      expect(await server.api.get(region.id)).toMatchObject({ in_use: true, has_writers: true });
      upload[Symbol.dispose]();
      await until("no writer is left", async () => !(await server.api.get(region.id)).has_writers);
      download[Symbol.dispose]();
      await untilLetGo(server, region);
      expect((await server.api.seal(region.id)).state).toBe("sealed");
      await checkBooks(server);
    });

    testWith()("a region that is deleted drains until its download has ended, with the right bytes", async () => {
      await using server = await lendDataServer();
      const region = await createLarge(server);
      writeContent(region, 3);
      const expected = await Bun.file(region.storage.path).slice(4096).bytes();
      const target = await targetOf(server, transport);
      using download = await beginDownload(target, region);
      expect((await server.api.delete(region.id)).state).toBe("draining");
      expect(exists(region.storage.path)).toBeFalse();
      // Once the lease of a download that began later has ended, the server has looked at this one too.
      const other = await server.api.create({ byte_size: 2 * MiB, ttl_ms: hour });
      using quick = new DataSocket(target);
      await quick.ask("GET", dataOf(other));
      await quick.answer();
      await until("the other is let go of", async () => !(await server.api.get(other.id)).in_use);
      expect(await server.api.get(region.id)).toMatchObject({ state: "draining", in_use: true });
      expect((await server.api.delete(other.id)).state).toBe("deleted");
      download.resume();
      const { status, body } = await download.answer();
      expect({ status, isRight: body.equals(expected) }).toEqual({ status: 200, isRight: true });
      await server.api.untilGone(region.id);
      expect(countRegionFiles(server)).toBe(0);
      expect(hostOf(await server.api.stats())).toMatchObject({ used_bytes: 0, draining_bytes: 0 });
    });

    testWith()("a region that is deleted ends its upload", async () => {
      await using server = await lendDataServer();
      const region = await createLarge(server);
      using upload = await beginUpload(server, await targetOf(server, transport), region, some);
      expect((await server.api.problem("POST", `/v1/regions/${region.id}/seal`, {})).code).toBe("region-has-writers");
      expect((await server.api.delete(region.id)).state).toBe("draining");
      await upload.pour(some, byteSize - some.length);
      await expectRefusal(upload, 409, "cancelled");
      await server.api.untilGone(region.id);
      expect(countRegionFiles(server)).toBe(0);
      await expectInStep(upload);
    });

    testWith()("a file that is truncated ends its download early, and the server lives", async () => {
      await using server = await lendDataServer();
      const region = await createLarge(server);
      using download = await beginDownload(await targetOf(server, transport), region);
      truncateSync(region.storage.path, byteSize / 2);
      download.resume();
      // The connection's end is all that tells the client.
      const received = await download.last();
      expect(received.toString("latin1", 0, 15)).toBe("HTTP/1.1 200 OK");
      expect(received.length).toBeLessThan(byteSize / 2);
      await untilLetGo(server, region);
      expect((await server.api.delete(region.id)).state).toBe("deleted");
    });

    testWith()("a file that is truncated ends its upload, and takes no page that is not its own", async () => {
      await using server = await lendDataServer();
      const region = await createLarge(server);
      using upload = await beginUpload(server, await targetOf(server, transport), region, some);
      truncateSync(region.storage.path, 8192);
      await upload.pour(some, byteSize - some.length);
      await expectRefusal(upload, 500, "io-error");
      const { size, blocks } = statSync(region.storage.path);
      expect(size).toBeLessThanOrEqual(region.storage.byte_size);
      expect(blocks * 512).toBeLessThan(region.storage.byte_size);
      await expectInStep(upload);
      await untilLetGo(server, region);
      expect(hostOf(await server.api.stats())).toMatchObject({
        used_bytes: region.storage.byte_size,
        draining_bytes: 0,
      });
    });

    for (const [what, sizes] of [
      ["truncated and given its size back", [8192, undefined]],
      ["extended", [byteSize + 8192]],
    ] as const) {
      testWith()(`a file that is ${what} ends its upload`, async () => {
        await using server = await lendDataServer();
        const region = await createLarge(server);
        using upload = await beginUpload(server, await targetOf(server, transport), region, some);
        for (const size of sizes) truncateSync(region.storage.path, size ?? region.storage.byte_size);
        await expectRefusal(upload, 500, "io-error");
        await untilLetGo(server, region);
      });
    }

    // What is sent is requests too, if anybody takes it for them.
    const poison = ({ id }: Region) =>
      Buffer.alloc(MiB, `\r\n\r\nDELETE /v1/regions/${id} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n`);

    for (const [what, path, status, code] of [
      ["longer than its region", dataOf, 413, "payload-too-large"],
      [
        "for a region that is not there",
        () => dataOf({ id: `reg_${"a".repeat(26)}` } as Region),
        404,
        "region-not-found",
      ],
      ["for a tensor that is not there", (region: Region) => `${dataOf(region)}?tensor=x`, 404, "tensor-not-found"],
    ] as const) {
      testWith()(`100 MB ${what} are refused while they come, and are not taken for requests`, async () => {
        await using server = await lendDataServer();
        const region = await createLarge(server);
        const target = await targetOf(server, transport);
        const grown = await measureGrowth(server, async () => {
          using socket = new DataSocket(target);
          await socket.ask("PUT", path(region), `Content-Length: ${100 * MiB}`);
          await expectRefusal(socket, status, code);
          await socket.pour(poison(region), 100 * MiB);
          await expectInStep(socket);
        });
        expect(grown).toBeLessThan(48 * MiB);
        expect((await server.api.get(region.id)).state).toBe("open");
        await untilLetGo(server, region);
      });
    }

    testWith()("a chunked body is refused when it is too long or too short, and the connection goes on", async () => {
      await using server = await lendDataServer();
      const region = await server.api.create({ byte_size: 3 * MiB, ttl_ms: hour });
      const block = poison(region);
      using socket = new DataSocket(await targetOf(server, transport));
      for (const [chunks, status, code] of [
        [2, 422, "validation-failed"],
        [4, 413, "payload-too-large"],
        [0, 422, "validation-failed"],
        [64, 413, "payload-too-large"],
      ] as const) {
        await socket.ask("PUT", dataOf(region), "Transfer-Encoding: chunked");
        for (let count = 0; count < chunks; count++) {
          await socket.send(`${MiB.toString(16)}\r\n`);
          await socket.send(block);
          await socket.send("\r\n");
        }
        await socket.send("0\r\n\r\n");
        await expectRefusal(socket, status, code);
        await expectInStep(socket);
      }
      expect((await server.api.get(region.id)).state).toBe("open");
      await untilLetGo(server, region);
    });

    testWith()("a body that goes on after the length that it declared fills no byte more", async () => {
      await using server = await lendDataServer();
      const region = await server.api.create({ byte_size: 2 * MiB, ttl_ms: hour });
      using socket = new DataSocket(await targetOf(server, transport));
      const range = `Content-Range: bytes 0-${MiB - 1}/*`;
      const more = "\x01".repeat(MiB / 2);
      await socket.send(socket.toHead("PUT", dataOf(region), `Content-Length: ${MiB}`, range));
      await socket.send(Buffer.alloc(MiB, 1));
      await socket.send(more);
      // The rest can only be a request, and is none: the connection ends with it, at times before the answer is written.
      const answer = await socket.answer().catch(() => undefined);
      expect(answer?.status ?? 200).toBe(200);
      expect((await socket.last()).toString("latin1")).toMatch(/^($|HTTP\/1\.1 4)/);
      await untilLetGo(server, region);
      const bytes = await Bun.file(region.storage.path).slice(4096).bytes();
      expect(bytes.lastIndexOf(1)).toBeLessThan(MiB);
      if (answer !== undefined) expect(bytes.indexOf(0)).toBe(MiB);
    });

    testWith()("a body that ends before the length that it declared is no upload, and its writer goes", async () => {
      await using server = await lendDataServer();
      const region = await createLarge(server);
      using upload = await beginUpload(server, await targetOf(server, transport), region, some);
      upload.end();
      expect((await upload.last()).toString("latin1")).toMatch(/^($|HTTP\/1\.1 4)/);
      await untilLetGo(server, region);
      expect((await server.api.get(region.id)).state).toBe("open");
    });

    testWith()("two lengths that contradict each other are refused, and the connection ends", async () => {
      await using server = await lendDataServer();
      const region = await server.api.create({ byte_size: 5, ttl_ms: hour });
      for (const headers of [
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Content-Length: 5"],
        ["Content-Length: 5", "Content-Length: 6"],
        ["Content-Length: -5"],
        ["Content-Length: 5x"],
        ["Transfer-Encoding: chunked, identity"],
      ]) {
        using socket = new DataSocket(await targetOf(server, transport));
        // In one piece: what comes after the server has closed would take its answer away.
        const inner = socket.toHead("DELETE", `/v1/regions/${region.id}`);
        await socket.send(`${socket.toHead("PUT", dataOf(region), ...headers)}0\r\n\r\n${inner}`);
        const received = (await socket.last()).toString("latin1");
        expect(received, headers.join()).toStartWith("HTTP/1.1 400 ");
        expect(received.split("HTTP/1.1").length, headers.join()).toBe(2);
      }
      expect((await server.api.get(region.id)).state).toBe("open");
    });

    testWith()("SIGTERM waits for a download", async () => {
      await using server = await lendDataServer();
      const region = await createLarge(server);
      using download = await beginDownload(await targetOf(server, transport), region);
      server.signal("SIGTERM");
      await until("the server stops", () => server.log.find(/^stopping/));
      download.resume();
      expect((await download.answer()).body.length).toBe(byteSize);
      expect(await server.exited()).toBe(0);
      await server.start();
    });

    testWith()("SIGTERM ends an upload, even one that stalls, with an answer", async () => {
      await using server = await lendDataServer();
      const region = await createLarge(server);
      using upload = await beginUpload(server, await targetOf(server, transport), region, some);
      server.signal("SIGTERM");
      await expectRefusal(upload, 503, "shutting-down");
      expect(await server.exited()).toBe(0);
      await server.start();
      expect(await server.api.get(region.id)).toMatchObject({ state: "open", has_writers: false, in_use: false });
    });

    testWith()(
      "after SIGKILL in the middle of an upload the region is open, without a writer, and can be filled",
      async () => {
        await using server = await lendDataServer();
        const region = await createLarge(server);
        using upload = await beginUpload(server, await targetOf(server, transport), region, some);
        await server.crash();
        await upload.last();
        expect(await server.api.get(region.id)).toMatchObject({ state: "open", has_writers: false, in_use: false });
        using next = new DataSocket(server.instance.socket);
        await next.ask("PUT", dataOf(region), `Content-Length: ${byteSize}`);
        await next.pour(randomBytes(MiB), byteSize);
        expect((await next.answer()).status).toBe(200);
        await untilLetGo(server, region);
        expect((await server.api.seal(region.id, { checksum: true })).state).toBe("sealed");
        await checkBooks(server);
      },
    );
  });
}

testWith()(
  "an upload that stalls is ended with an answer, its writer with it, and the connection stays in step",
  async () => {
    await using server = await lendDataServer();
    const stall = async (target: string) => {
      const region = await createLarge(server);
      using upload = await beginUpload(server, target, region, some);
      await expectRefusal(upload, 504, "deadline-exceeded", 3 * limits.uploadStallMs);
      // The rest of its body is still owed, and is nothing else.
      await upload.pour(Buffer.alloc(MiB, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"), byteSize - some.length);
      await expectInStep(upload);
      expect((await server.api.seal(region.id)).state).toBe("sealed");
      await untilLetGo(server, region);
    };
    await Promise.all([stall(await server.readUrl()), stall(server.instance.socket)]);
  },
);

testWith()("SIGTERM gives up a download that nobody reads when its grace is over", async () => {
  await using server = await lendDataServer();
  const region = await createLarge(server);
  using download = await beginDownload(server.instance.socket, region);
  server.signal("SIGTERM");
  expect(await server.exited(3 * limits.shutdownGraceMs)).toBe(0);
  download.resume();
  expect((await download.last()).length).toBeLessThan(byteSize);
  await server.start();
  await untilLetGo(server, region);
});
