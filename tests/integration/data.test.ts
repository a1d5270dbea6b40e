/** The HTTP data plane over real sockets: what passes is what workers map, in both directions, beside others. */

import { afterAll, describe, expect } from "bun:test";
import { randomBytes } from "node:crypto";
import {
  beginDownload,
  countRegionFiles,
  measureGrowth,
  targetOf,
  transports,
  untilLetGo,
} from "../harness/data-server.ts";
import { DataSocket } from "../harness/data-socket.ts";
import { checkBooks } from "../harness/instance-check.ts";
import { writeContent } from "../harness/instance-content.ts";
import {
  needsOpenFiles,
  needsPython,
  needsRoom,
  needsStockPython,
  python,
  stockPython,
  testWith,
} from "../harness/instance-needs.ts";
import { takeRoom } from "../harness/instance-room.ts";
import { endLentServers, lendServer } from "../harness/lent-server.ts";
import { runScript, WorkerProcess } from "../harness/worker.ts";

const KiB = 2 ** 10;
const MiB = 2 ** 20;
const hour = 3_600_000;
/** No multiple of a page or of a chunk. */
const oddBytes = 5 * MiB + 4097;

afterAll(endLentServers);

/** It listens on both. */
const both = { TENSORD_PORT: "0" };

for (const transport of transports) {
  describe(`over ${transport}`, () => {
    testWith(needsPython)("bytes that a worker wrote are downloaded, whole and in part", async () => {
      await using server = await lendServer(both);
      await using worker = new WorkerProcess();
      const region = await server.api.create({ byte_size: oddBytes, ttl_ms: hour });
      const at = region.tensors[0]?.byte_offset ?? 0;
      await worker.attach("r", region, "write");
      await worker.write("r", at, oddBytes, 1);
      const mapped = Buffer.from(await worker.read("r", at, oddBytes), "hex");
      const target = await targetOf(server, transport);
      using whole = new DataSocket(target);
      await whole.ask("GET", `/v1/regions/${region.id}/data`);
      const answer = await whole.answer();
      expect(answer.status).toBe(200);
      expect(answer.body.equals(mapped)).toBeTrue();
      for (const [range, part] of [
        [`bytes=${MiB - 1}-${3 * MiB}`, mapped.subarray(MiB - 1, 3 * MiB + 1)],
        ["bytes=-4097", mapped.subarray(-4097)],
        ["bytes=5-9", mapped.subarray(5, 10)],
      ] as const) {
        using socket = new DataSocket(target);
        await socket.ask("GET", `/v1/regions/${region.id}/data?tensor=data`, `Range: ${range}`);
        const { status, body } = await socket.answer();
        expect({ status, isRight: body.equals(part) }, range).toEqual({ status: 206, isRight: true });
      }
      await worker.detach("r");
      await untilLetGo(server, region);
      await checkBooks(server);
    });

    testWith(needsPython)("bytes that are uploaded are seen by workers that map the region", async () => {
      await using server = await lendServer(both);
      await using reader = new WorkerProcess();
      await using writer = new WorkerProcess();
      const region = await server.api.create({ byte_size: oddBytes, ttl_ms: hour });
      const at = region.tensors[0]?.byte_offset ?? 0;
      await reader.attach("r", region);
      await writer.attach("r", region, "write");
      const bytes = randomBytes(oddBytes);
      using socket = new DataSocket(await targetOf(server, transport));
      const path = `/v1/regions/${region.id}/data`;
      await socket.ask("PUT", path, `Content-Length: ${oddBytes}`);
      await socket.send(bytes);
      expect(JSON.parse((await socket.answer()).body.toString())).toEqual({ written_bytes: oddBytes });
      const read = async (worker: WorkerProcess) => Buffer.from(await worker.read("r", at, oddBytes), "hex");
      expect((await read(reader)).equals(bytes)).toBeTrue();
      // In chunks, of a part, on the same connection, with a question whether it may.
      const part = randomBytes(2 * MiB);
      const range = `Content-Range: bytes 4095-${4094 + part.length}/${oddBytes}`;
      await socket.ask("PUT", path, "Transfer-Encoding: chunked", "Expect: 100-continue", range);
      expect((await socket.answer()).status).toBe(100);
      for (const half of [part.subarray(0, MiB + 1), part.subarray(MiB + 1)]) {
        await socket.send(`${half.length.toString(16)}\r\n`);
        await socket.send(half);
        await socket.send("\r\n");
      }
      await socket.send("0\r\n\r\n");
      expect((await socket.answer()).status).toBe(200);
      part.copy(bytes, 4095);
      expect((await read(writer)).equals(bytes)).toBeTrue();
      await writer.detach("r");
      await server.api.seal(region.id, { checksum: true });
      expect((await server.api.verify(region.id)).ok).toBeTrue();
      await reader.detach("r");
      await untilLetGo(server, region);
      await checkBooks(server);
    });

    // Each takes a connection and a file, beside what the server has open and keeps for itself.
    testWith(needsOpenFiles(96))(
      "16 downloads of a region at once share one lease, and each gets all of it",
      async () => {
        await using server = await lendServer(both);
        const region = await server.api.create({ byte_size: 8 * MiB, ttl_ms: hour });
        writeContent(region, 7);
        const expected = await Bun.file(region.storage.path).slice(4096).bytes();
        const target = await targetOf(server, transport);
        using all = new DisposableStack();
        const sockets = await Promise.all(Array.from({ length: 16 }, () => beginDownload(target, region)));
        for (const socket of sockets) all.use(socket);
        expect(countRegionFiles(server)).toBe(sockets.length + 1);
        expect((await server.api.get(region.id)).in_use).toBeTrue();
        for (const socket of sockets) {
          socket.resume();
          const { status, body } = await socket.answer();
          expect({ status, isRight: body.equals(expected) }).toEqual({ status: 200, isRight: true });
        }
        await untilLetGo(server, region);
      },
    );

    testWith(needsRoom(320 * MiB))("readers that take nothing cost no memory and hold up nobody", async () => {
      await using server = await lendServer(both);
      const region = await server.api.create({ byte_size: 256 * MiB, ttl_ms: hour });
      const target = await targetOf(server, transport);
      using slow = new DisposableStack();
      const grown = await measureGrowth(server, async () => {
        for (let count = 0; count < 8; count++) slow.use(await beginDownload(target, region));
        for (let count = 0; count < 100; count++) await server.api.stats();
        using quick = new DataSocket(target);
        await quick.ask("GET", `/v1/regions/${region.id}/data`, "Range: bytes=-1048576");
        expect((await quick.answer()).status).toBe(206);
      });
      expect(grown).toBeLessThan(48 * MiB);
      slow.dispose();
      await untilLetGo(server, region);
    });
  });
}

testWith(needsPython)(
  "the kernel keeps little of a TCP connection, so that no turn of the server moves much",
  async () => {
    await using server = await lendServer(both);
    const region = await server.api.create({ byte_size: 64 * MiB, ttl_ms: hour });
    const { port } = new URL(await server.readUrl());
    for (const method of ["PUT", "GET"]) {
      const path = `/v1/regions/${region.id}/data`;
      const args = [port, `${server.pid}`, method, path, `${64 * MiB}`];
      const kept = await runScript<number>(python ?? "", "kernel_keeps.py", ...args);
      // What the runtime reads at most at once is 512 KiB, and it goes on only if nearly that much was there.
      expect(kept, `bytes kept of a ${method}`).toBeLessThan(400 * KiB);
      expect(kept).toBeGreaterThan(0);
    }
    await untilLetGo(server, region);
  },
);

testWith(needsStockPython)("numbers that are uploaded are numpy's, and numpy's are downloaded", async () => {
  await using server = await lendServer(both);
  const tensors = [
    { name: "w", dtype: "F32" as const, shape: [3, 1] },
    { name: "first", dtype: "F64" as const, shape: [2] },
  ];
  const region = await server.api.create({ tensors, ttl_ms: hour });
  const url = `${await server.readUrl()}/v1/regions/${region.id}/data?tensor=w`;
  const put = await fetch(url, { method: "PUT", body: new Float32Array([1.5, -2.25, 1e30]) });
  expect(put.status).toBe(200);
  const { byte_offset } = region.tensors.find(({ name }) => name === "w") ?? { byte_offset: 0 };
  const seen = await runScript<number[]>(stockPython, "data_numpy.py", region.storage.path, `${byte_offset}`, "3");
  expect(seen).toEqual([1.5, -2.25, Math.fround(1e30)]);
  const doubled = new Float32Array(await (await fetch(url)).arrayBuffer());
  expect([...doubled]).toEqual([3, -4.5, Math.fround(2 * Math.fround(1e30))]);
});

/** A gibibyte in the long form. */
const muchBytes = (process.env.TEST_LONG === undefined ? 192 : 1024) * MiB;

testWith(needsRoom(muchBytes + 512 * MiB))(
  "a PUT, one in chunks, and a GET of much more add less than 64 MiB to the server's memory",
  async () => {
    using _room = await takeRoom();
    await using server = await lendServer(both);
    const byteSize = muchBytes;
    const region = await server.api.create({ byte_size: byteSize, ttl_ms: hour });
    const path = `/v1/regions/${region.id}/data`;
    const block = randomBytes(MiB);
    for (const transport of transports) {
      const grown = await measureGrowth(server, async () => {
        using socket = new DataSocket(await targetOf(server, transport));
        await socket.ask("PUT", path, `Content-Length: ${byteSize}`);
        await socket.pour(block, byteSize);
        expect((await socket.answer()).status).toBe(200);
        await socket.ask("PUT", path, "Transfer-Encoding: chunked");
        const chunk = Buffer.concat([Buffer.from(`${MiB.toString(16)}\r\n`), block, Buffer.from("\r\n")]);
        await socket.pour(chunk, (byteSize / MiB) * chunk.length);
        await socket.send("0\r\n\r\n");
        expect((await socket.answer()).status).toBe(200);
        const unix = transport === "TCP" ? {} : { unix: server.instance.socket };
        const response = await fetch(`${await server.readUrl()}${path}`, unix);
        let received = 0;
        for await (const chunk of response.body ?? []) received += chunk.length;
        expect(received).toBe(byteSize);
      });
      console.log(`over ${transport} the server grew by ${Math.round(grown / MiB)} MiB`);
      expect(grown).toBeLessThan(64 * MiB);
    }
  },
);
